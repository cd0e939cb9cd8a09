"""What connectors and losses may know of the two sides that they stand between: all of it, in one class."""

import inspect
import re
from dataclasses import dataclass

from ppkd.detectors.taps import Level
from ppkd.errors import UserError


@dataclass(frozen=True)
class Side:
    """One side of a term: a map of one detector.

    Attributes:
        level: the `taps.Level` that is compared; of a term of several the first. Its ``source`` is the name as a user
            would write it.
        detector: `detectors.Detector`, what else is known about the model; None in tests of a term by itself.
        compared: the channels that the loss gets of this side, behind all connectors; `channels` while those are made.
    """

    level: Level
    detector: object = None
    compared: int | None = None

    @property
    def channels(self):
        """Channels of the map as the detector makes it, before any connector."""
        return self.level.channels

    @property
    def stride(self):
        """Pixels of the input a cell stands for, or None for what is no feature map."""
        return self.level.stride

    @property
    def norm(self):
        """The batch norm whose output the map is (see `Detector.norm_before`), or None."""
        return self.detector.norm_before(self.level) if self.detector else None

    def remaining(self, skip):
        """What is left of the head, up to this map, where the first `skip` layers of its tower are left out.

        Returns:
            `RemainingLayers`.

        Raises:
            UserError: the map is none of a head whose layers are known.
        """
        match = re.fullmatch(r"head\.(\w+)\[(\d+)\]", self.level.source)
        if match is None:
            found = self.level.source
            raise UserError(f"connector teacher_head: the teacher's source has to be of its head, found {found}")
        source, index = f"head.{match[1]}", int(match[2])
        run = self.detector.remaining(source, index, skip)
        entry = self.detector.levels(self.detector.enters(source, index, skip))[0]
        return RemainingLayers(run, entry.channels, self.channels)


@dataclass(frozen=True)
class RemainingLayers:
    """Layers of a head: a function from a map to a prediction, and the channels of the two."""

    run: object
    channels_in: int
    channels: int


@dataclass(frozen=True)
class Sides:
    """Both sides of a term: what a constructor gets that has a parameter ``sides``.

    Attributes:
        student, teacher: `Side`.
    """

    student: Side
    teacher: Side

    def of_loss(self, kind):
        """What the constructor of a loss asks for: ``sides``, or the short names of two of its numbers."""
        short = {"sides": self, "channels": self.teacher.compared, "student_channels": self.student.channels}
        return {name: short[name] for name in short.keys() & parameters(kind).keys()}

    def of_connector(self, kind):
        """What the constructor of a connector asks for: ``sides``, or the short names for two things of them."""
        short = {"student_channels": lambda: self.student.channels, "batch_norm": lambda: self.teacher.norm}
        short["sides"] = lambda: self
        return {name: short[name]() for name in short.keys() & parameters(kind).keys()}


@dataclass(frozen=True)
class Moment:
    """What a connector may know when it connects: what a ``forward`` gets that has a parameter ``moment``.

    Attributes:
        like: the other side's tensor, as recorded.
        age: batches since the term began.
    """

    like: object
    age: int = 0

    def asked(self, names):
        """Those of `OF_FORWARD` that a ``forward`` asks for."""
        each = {"moment": self, "like": self.like, "age": self.age}
        return {name: each[name] for name in names}


# What constructors and a connector's forward get from the run and not from the file.
OF_LOSS = ("sides", "channels", "student_channels")
OF_CONNECTOR = ("channels", "target", "sides", "student_channels", "batch_norm")
OF_FORWARD = {"moment", "like", "age"}


def parameters(function):
    """The parameters of a function or constructor: name -> `inspect.Parameter`."""
    return inspect.signature(function).parameters
