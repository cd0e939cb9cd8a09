"""An update of the weights by the two losses of a step, the detection loss and the distillation's."""

from ppkd.training.clipping import Clipping
from ppkd.training.gradient_parts import GradientParts
from ppkd.training.lengths import Lengths
from ppkd.training.moments import Moments
from ppkd.training.optimizing import Optimizing


class Update:
    """Lets the optimizer take a step, with what either loss has for itself (see `recipe.parting.Parting`).

    Args:
        optimizer: Paddle's; changed in place.
        rate: its schedule of the learning rate.
        parameters: all that are trained.
        distill: `model.DistillModel`, or None.
        precision: `precision.Precision`.

    Attributes:
        optimizing, moments, clipping, lengths: its parts.

    Raises:
        UserError: what is to be apart cannot be.
    """

    def __init__(self, optimizer, rate, parameters, distill, precision):
        self._precision = precision
        self.optimizing = Optimizing(optimizer, rate)
        self.moments = Moments(optimizer, rate, distill, precision)
        self.clipping = Clipping(optimizer, distill, precision.scales)
        students = parameters if distill is None else [p for p in distill.student.parameters() if not p.stop_gradient]
        self.lengths = Lengths(optimizer, students, self.clipping, self.moments, precision.scales)
        self._parts, self._watched = GradientParts(parameters, distill), False

    @property
    def _apart(self):
        return self.clipping.apart or self.moments.apart

    def begin(self, watched):
        """A step begins.

        Args:
            watched: whether its lengths are measured, if that is possible.
        """
        self._watched = watched and self.lengths.possible

    def keep(self, losses, share):
        """Look at a batch's losses before they go backward.

        Args:
            losses: by name.
            share: of this batch in the step's loss; 0 where it stands in for one without images. What is kept is
                exchanged, and all ranks have to take part.
        """
        part = self._parts.part(losses) if self._apart or self._watched else None
        if part is not None:
            self._parts.keep(part * share if share != 1 else part)

    def take(self, factor):
        """Take the step.

        Args:
            factor: on its learning rate.
        """
        parted = self._parts.take()
        if self._apart:
            self.clipping.split(parted)
            self.moments.split(parted)
        if self._watched:
            self.lengths.begin(parted)
        self.optimizing.step(self._precision, factor)
        self.clipping.end()
        self.moments.step(parted, factor)
        self.lengths.end()

    def leave(self, factor):
        """Do not take the step, since something of it is not finite; a scaler skips it by itself, and has to see it."""
        self._parts.forget()
        if self._precision.scales:
            self.optimizing.step(self._precision, factor)
            self.clipping.end()

    def forget(self, squares):
        """Begin anew what is kept of former gradients, as `optimizing.Optimizing.forget`."""
        self.optimizing.forget(squares)
        self.moments.forget(squares)
