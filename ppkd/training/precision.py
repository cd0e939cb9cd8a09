"""Mixed precision: what is computed in which type, and the scale that keeps small gradients."""

import paddle

from ppkd.errors import UserError
from ppkd.terminal.log import logger

LEVELS, DTYPES = ("O1", "O2"), ("float16", "bfloat16")


class Precision:
    """Runs training steps in float32, or in mixed precision (Micikevicius et al., ICLR 2018).

    Losses and distillation terms are computed in float32 whatever is asked for (`losses.common.full_precision`).

    Args:
        config: the run's config: ``amp_level`` (``O1``: operators that gain by it; ``O2``: all but a few, the weights
            too), ``amp_dtype``, ``init_loss_scaling``, ``custom_white_list``, ``custom_black_list``.
        wanted: whether mixed precision is asked for at all.

    Attributes:
        on: whether there is any.

    Raises:
        UserError: an unknown level or type, or a type that the device does not have.
    """

    def __init__(self, config, wanted):
        self.level, self.dtype = config.get("amp_level") or "O1", config.get("amp_dtype") or "float16"
        for key, value, known in (("amp_level", self.level, LEVELS), ("amp_dtype", self.dtype, DTYPES)):
            if value not in known:
                raise UserError(f"{key} has to be one of {', '.join(known)}, found {value!r}")
        self.on = bool(wanted) and self._possible()
        self._lists = {key: config.get(key) for key in ("custom_white_list", "custom_black_list")}
        # A bfloat16 has float32's range: nothing is too small for it.
        self.scaler = paddle.amp.GradScaler(
            enable=self.on and self.dtype == "float16", init_loss_scaling=config.get("init_loss_scaling") or 1024
        )

    def _possible(self):
        if paddle.get_device().startswith("cpu"):
            logger().warning("--amp: Paddle has no mixed precision for training on the CPU; going on in float32")
            return False
        if self.dtype == "bfloat16" and not paddle.amp.is_bfloat16_supported():
            raise UserError("amp_dtype: this device has no bfloat16; float16 would do (-o amp_dtype=float16)")
        return True

    @property
    def scales(self):
        """Whether there is a loss scaler."""
        return self.scaler.is_enable()

    def prepare(self, student, optimizer, teachers):
        """Give student and teachers weights in the lower type, if the level says so.

        Args:
            student, teachers: ppdet models; changed in place.
            optimizer: keeps the student's weights in float32.
        """
        if not self.on or self.level != "O2":
            return
        paddle.amp.decorate(
            models=student, optimizers=optimizer, level="O2", dtype=self.dtype, master_weight=True, save_dtype="float32"
        )
        for teacher in teachers:
            paddle.amp.decorate(models=teacher, level="O2", dtype=self.dtype)

    def context(self):
        """A block whose operators run in mixed precision, if it is on."""
        return paddle.amp.auto_cast(enable=self.on, level=self.level, dtype=self.dtype, **self._lists)

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
