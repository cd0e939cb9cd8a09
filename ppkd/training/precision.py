"""Mixed precision: what is computed in which type, and the scale that keeps small gradients."""

import contextlib

import paddle

from ppkd.errors import UserError
from ppkd.terminal.log import logger

LEVELS, DTYPES = ("O1", "O2"), ("float16", "bfloat16")
FULL = "float32"


class Precision:
    """Runs training steps in float32, or in mixed precision (Micikevicius et al., ICLR 2018).

    Losses and distillation terms are computed in float32 whatever is asked for (`losses.common.full_precision`).

    Args:
        config: the run's config: ``amp_level`` (``O1``: operators that gain by it; ``O2``: all but a few, the weights
            too), ``amp_dtype``, ``init_loss_scaling``, ``custom_white_list``, ``custom_black_list``; ``teacher_dtype``,
            that of the teachers if it is another than the student's. Without an ``amp_level`` beside it the student
            stays in float32.
        wanted: whether mixed precision is asked for at all.

    Attributes:
        on: whether there is any.
        level: ``O1`` or ``O2``, of the student; None where it stays in float32.

    Raises:
        UserError: an unknown level or type, or a type that the device does not have.
    """

    def __init__(self, config, wanted):
        self.dtype, self._of_teachers = config.get("amp_dtype") or "float16", config.get("teacher_dtype")
        level = config.get("amp_level")
        for key, value, known in (
            ("amp_level", level or "O1", LEVELS),
            ("amp_dtype", self.dtype, DTYPES),
            ("teacher_dtype", self._of_teachers or FULL, (FULL, *DTYPES)),
        ):
            if value not in known:
                raise UserError(f"{key} has to be one of {', '.join(known)}, found {value!r}")
        if self._of_teachers and not wanted:
            logger().warning("teacher_dtype: %s changes nothing without --amp", self._of_teachers)
        self.on = bool(wanted) and self._possible()
        self.level = None if self._of_teachers and not level else level or "O1"
        self._check(self.level and self.dtype, "amp_dtype")
        self._check(self._of_teachers, "teacher_dtype")
        self._lists = {key: config.get(key) for key in ("custom_white_list", "custom_black_list")}
        # A bfloat16 has float32's range: nothing is too small for it. Nor is anything that has no gradient.
        self.scaler = paddle.amp.GradScaler(
            enable=self.on and self.level is not None and self.dtype == "float16",
            init_loss_scaling=config.get("init_loss_scaling") or 1024,
        )
        self._student = self._optimizer = None
        self._inside = False

    def _possible(self):
        if paddle.get_device().startswith("cpu"):
            logger().warning("--amp: Paddle has no mixed precision for training on the CPU; going on in float32")
            return False
        return True

    def _check(self, dtype, key):
        if self.on and dtype == "bfloat16" and not paddle.amp.is_bfloat16_supported():
            raise UserError(f"{key}: this device has no bfloat16; float16 would do (-o {key}=float16)")

    @property
    def scales(self):
        """Whether there is a loss scaler."""
        return self.scaler.is_enable()

    @property
    def lowers(self):
        """Whether the student's weights are of a lower type."""
        return self._student is not None

    def prepare(self, student, optimizer, teachers):
        """Give student and teachers weights in the lower type, if that is what they are to have.

        Args:
            student, teachers: ppdet models; changed in place.
            optimizer: keeps the student's weights in float32.
        """
        if not self.on:
            return
        if self.level == "O2":
            # Without its `save_dtype`, by which `state_dict` would give copies: an average would hold on to nothing.
            paddle.amp.decorate(models=student, optimizers=optimizer, level="O2", dtype=self.dtype, master_weight=True)
            self._student, self._optimizer = student, optimizer
        self.prepare_teachers(teachers)

    def prepare_teachers(self, teachers):
        """Give teachers weights in the lower type, if that is what they are to have; changed in place."""
        for teacher in teachers if self._teachers_low() else ():
            paddle.amp.decorate(models=teacher, level="O2", dtype=self._teachers_low())

    def _teachers_low(self):
        """The type of the teachers' weights if it is a lower one, or None."""
        dtype = self._of_teachers or (self.dtype if self.level == "O2" else FULL)
        return dtype if self.on and dtype != FULL else None

    def masters(self):
        """The student's weights that the optimizer has in float32, by the names of the parameters in a lower type.

        Before the first step there are none.
        """
        return {} if not self.lowers else self._optimizer.state_dict().get("master_weights") or {}

    @contextlib.contextmanager
    def whole(self):
        """A block in which the student's weights are float32 whatever type they are trained in.

        They are those that the optimizer keeps, and what is put into them is what it goes on from. In it the student is
        averaged, evaluated and saved, and takes the weights of a resume file.
        """
        if not self.lowers or self._inside:
            yield
            return
        self._inside, masters = True, self.masters()
        kept = [(p, masters[p.name]) for p in self._student.parameters() if p.name in masters]
        self._student.float()
        with paddle.no_grad():
            for parameter, master in kept:
                paddle.assign(master, parameter)
        try:
            yield
        finally:
            with paddle.no_grad():
                for parameter, master in kept:
                    paddle.assign(parameter, master)
            paddle.amp.decorate(models=self._student, level="O2", dtype=self.dtype)
            self._inside = False

    def context(self):
        """A block whose operators run in mixed precision, if it is on."""
        if not self.on:
            return contextlib.nullcontext()
        low = self.level is not None  # else the teacher's alone
        return paddle.amp.auto_cast(enable=low, level=self.level or "O1", dtype=self.dtype, **self._lists)

    def of_teachers(self):
        """A block for what teachers compute, in that of a step or outside of any."""
        if low := self._teachers_low():
            return paddle.amp.auto_cast(enable=True, level="O2", dtype=low)
        # As the step is, unless they are said to be in float32.
        return paddle.amp.auto_cast(enable=False) if self.on and self._of_teachers else contextlib.nullcontext()

    def backward(self, loss):
        """Compute the gradients of a loss."""
        (self.scaler.scale(loss) if self.scales else loss).backward()

    def step(self, optimizer):
        """Let the optimizer take its step, unless a gradient went beyond the type's range."""
        if self.scales:
            self.scaler.step(optimizer)
            self.scaler.update()
        else:
            optimizer.step()

    def state(self):
        """What resuming needs, or None."""
        return self.scaler.state_dict() if self.scales else None

    def restore(self, state):
        """Go on as `state` was."""
        if self.scales and state:
            self.scaler.load_state_dict(state)
