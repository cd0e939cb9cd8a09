"""The teachers of a run as they are asked: run as far as their sources need, or read from a bank."""

import contextlib
import time
from functools import partial

import paddle

from ppkd.detectors import detector_for
from ppkd.detectors.recorders import recording
from ppkd.terminal.log import logger


class Teachers:
    """Frozen teachers by name, in eval mode; iterates over pairs of a name and a `detectors.Detector`.

    Args:
        models: name -> ppdet model; frozen and put into eval mode here.
        preparations: name of a teacher -> what turns the student's batch into one that it knows.

    Attributes:
        bank: `bank.Bank`, or None.
        assigner: name of the teacher whose targets the bank keeps, or None.
        recall: function to the models by name, with their weights, if `let_go` may be followed by another question.
        seconds: time of all teachers since `begin`, or None if none ran or it is not measured.
    """

    def __init__(self, models, preparations):
        self._preparations, self._block, self._timed, self.seconds = preparations, contextlib.nullcontext, False, None
        self.bank, self.recall, self.assigner = None, None, None
        self._seat(models)

    def _seat(self, models):
        self._seated = tuple((name, detector_for(freeze(model))) for name, model in models.items())
        self.compute(self._block)

    def __iter__(self):
        return iter(self._seated)

    def __len__(self):
        return len(self._seated)

    def compute(self, block):
        """Let them compute inside of blocks that a function without arguments makes."""
        self._block = block
        for _, detector in self:
            detector.block = block

    def let_go(self):
        """Hold them no more; with a `recall` they come back when they have to be asked."""
        self._seated = ()

    def begin(self, timed):
        """A step begins, whose time is measured or not."""
        self._timed, self.seconds = timed, None

    def taught(self, batch, terms, assigner, view=None, every=()):
        """What terms take of their teachers.

        Args:
            batch: as the student gets it.
            terms: those of the step.
            assigner: name of the teacher whose predictions call for targets, or None.
            view: the batch's `bank.VIEW`, or None.
            every: all terms whose inputs the bank keeps.

        Returns:
            ``(label -> what `terms.Term.compare` takes, those targets or None)``.
        """
        if self.bank is not None and view is not None:
            with paddle.no_grad():
                return self.bank.taught(view, terms, every, partial(self._asked, batch), assigner is not None)
        recorded, given = self.run(batch, terms, assigner)
        return {term.label: term.of_teacher(recorded[term.teacher]) for term in terms}, given

    def _asked(self, batch, terms):
        return self.run(batch, terms, self.assigner)

    def run(self, batch, terms, assigner):
        """What each teacher's sources gave, by its name, and the targets that the predictions of one call for."""
        # Whoever asks: a view may be missing, of a later reader too, or a later reader mix images, which has no views.
        if not self._seated and self.recall is not None:
            logger().info("bank: what the teacher says of a batch is not there, the teacher comes back")
            self._seat(self.recall())
        recorded, given = {}, None
        with self.timing():
            for name, detector in self:
                taps = [tap for term in terms if term.teacher == name for tap in term.taps(1)]
                taps += detector.outputs() if name == assigner else []
                if not taps:
                    continue
                prepare = self._preparations.get(name)
                parts = {path.split(".")[0] for tap in taps for path in tap.paths}
                with paddle.no_grad(), detector.block(), recording(detector.model, taps) as recorder:
                    detector.run(prepare(batch) if prepare else batch, parts)
                recorded[name] = recorder
                if name == assigner:
                    with paddle.no_grad():
                        given = detector.assign(recorder, batch)
        return recorded, given

    @contextlib.contextmanager
    def timing(self):
        """Add what is done inside to `seconds`, where they are measured."""
        begin = self._clock()
        yield
        if self._timed:
            self.seconds = (self.seconds or 0.0) + self._clock() - begin

    def _clock(self):
        if self._timed and paddle.get_device().startswith("gpu"):
            paddle.device.synchronize()
        return time.perf_counter()


def freeze(model):
    """Put a model into eval mode and exclude every parameter of it from training; returns it."""
    model.eval()
    for parameter in model.parameters():
        parameter.stop_gradient = True
        parameter.trainable = False
    return model
