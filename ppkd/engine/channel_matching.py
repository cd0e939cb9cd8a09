"""Which channels of a wide teacher go with which of a narrow student, as a connector (Yue et al., ECCV 2020).

The mathematics stands in :mod:`ppkd.losses.partial_l2`.
"""

import numpy as np
import paddle
from paddle import nn

from ppkd.engine.sizes import match_size
from ppkd.engine.updates import Updates
from ppkd.losses.common import full_precision, up
from ppkd.losses.partial_l2 import channel_distances, check_reducer, negative_margins, reduce_maps, reduce_margins
from ppkd.losses.ranks import of_first_rank, summed


def assign(distances, images, single=False):
    """Match channels one to one at the least total cost, exactly.

    Costs are the mean distances, multiplied by 1e5 and truncated, as the reference has them. Where the teacher has G
    times as many channels (rounded down), every channel of the student takes part G times, and the teacher's first
    ``G * S`` channels are distributed.

    Args:
        distances: (S, T) array, summed over images.
        images: their number.
        single: give every channel of the student one, the best of all of the teacher's (sparse matching).

    Returns:
        (G, S) int64 array: the group of channel i is column i, in ascending order; G is 1 if `single`.
    """
    # Loading it takes half a second, and most runs match nothing.
    from scipy.optimize import linear_sum_assignment

    costs = (distances / images * 1e5).astype(np.int64)
    students, teachers = costs.shape
    groups = 1 if single else teachers // students
    if not single:
        costs = np.tile(costs[:, : groups * students], (groups, 1))
    _, columns = linear_sum_assignment(costs)
    return np.sort(columns.reshape(groups, students).astype(np.int64), axis=0)


class Match(nn.Layer):
    """Makes as many channels of the teacher's as the student has, and lifts what is far below zero to a margin.

    Each of the student's channels has a group of the teacher's, of which one value is made. Groups are chosen by
    minimum cost, by how far the maps of two channels are from each other over the images of many batches, on all
    ranks together; see `Updates` for when. A batch whose maps are not finite is not counted. Made for maps before
    their ReLU: ``backbone.pre_relu[*]``.

    .. code-block:: yaml

        teacher_connector: {name: match, reducer: amp, update_every: 5000, track: 1000}

    Args:
        channels: the teacher's.
        target: not used.
        sides: `sides.Sides`; what goes out has the channels of the student's map.
        reducer: what is made of a group: ``amp``, ``sp``, ``rd`` or ``sm``, see `losses.partial_l2.reduce_maps`.
        margin: whether values are lifted to what the batch norm makes the mean of the negative ones.
        update_every, update_until, update_later, track: see `Updates`.

    Raises:
        ValueError: a student of more channels, a margin without a batch norm, an unknown reducer.
    """

    side = "teacher"
    # What it counts holds no value that is not finite, so `numerics` leaves it in place when a step is skipped.
    counts_finite = True
    # Buffers of which every process has its own (`of_ranks.OfRanks`).
    of_rank = ("distances", "images")

    def __init__(
        self, channels, target, sides, reducer="amp", margin=True,
        update_every=5000, update_until=20000, update_later=31000, track=1000,
    ):  # fmt: skip
        super().__init__()
        check_reducer(reducer)
        student_channels, batch_norm = sides.student.channels, sides.teacher.norm
        if channels < student_channels:
            raise ValueError(
                f"the student has {student_channels} channels and the teacher {channels}, expected no more than these: "
                "the teacher's are distributed among the student's"
            )
        if margin and batch_norm is None:
            raise ValueError("margin: the teacher's map comes from no batch norm; set margin: false")
        self.channels, self.reducer = student_channels, reducer
        self._updates = Updates(update_every, update_until, update_later, track)
        # A tuple hides the teacher's layer: it is none of this one's.
        self._norm = (batch_norm,) if margin else None
        groups = 1 if reducer == "sm" else channels // student_channels
        first = paddle.arange(groups * student_channels).reshape([groups, student_channels])
        self.register_buffer("assignment", first)
        self.register_buffer("margins", paddle.full([channels], np.finfo("float32").min))
        # What has been seen since the update began, on this rank, and which update that is: the batch it began at.
        self.register_buffer("begun", paddle.full([1], -1, "int64"))
        self.register_buffer("distances", paddle.zeros([student_channels, channels], "float64"))
        self.register_buffer("images", paddle.zeros([1], "float64"))
        # The update that was last solved for. After resuming it is solved for once more, with the same result.
        self._solved = None

    @full_precision
    def forward(self, x, moment):
        """The target for a student.

        Args:
            x: (N, T, H, W) of the teacher.
            moment: `sides.Moment`; ``like`` is (N, S, h, w) of the student, before any connector.

        Returns:
            (N, S, h, w) float32, without gradient.
        """
        like, age = moment.like, moment.age
        with paddle.no_grad():
            x = match_size(like, up(x.detach()))
            begin = self._updates.begin(age)
            if self._updates.looks(age):
                self._look(like, x, begin)
            # The batch that an update is due at may be missing: it was broken, or its step was skipped.
            due = self._updates.over(age) and self._solved != begin
            if due or self._updates.early(age):
                self._update()
            if due:
                self._solved = begin
            reduced = reduce_maps(x, self.assignment, self.reducer)
            if self._norm is None:
                return reduced
            return paddle.maximum(reduced, reduce_margins(self.margins, self.assignment, self.reducer))

    def _look(self, student, teacher, begin):
        """Count the images of a batch, without the host looking at any value."""
        found = channel_distances(student, teacher).astype("float64")
        counts = paddle.isfinite(found).all()
        goes_on = (self.begun == begin).astype("float64")
        found = paddle.where(counts, found, paddle.zeros_like(found))
        paddle.assign(self.distances * goes_on + found, self.distances)
        paddle.assign(self.images * goes_on + len(student) * counts.astype("float64"), self.images)
        paddle.assign(paddle.full([1], begin, "int64"), self.begun)

    def _update(self):
        """Solve for what was seen on all ranks. The host waits for the device here, and only here."""
        distances, images = summed([self.distances.clone(), self.images.clone()])
        if not float(images):
            return
        found = assign(distances.numpy(), float(images), self.reducer == "sm")
        paddle.assign(of_first_rank(paddle.to_tensor(found)), self.assignment)
        if self._norm is not None and self._norm[0] is not None:
            (norm,) = self._norm
            paddle.assign(negative_margins(norm.weight, norm.bias), self.margins)

    def let_go(self):
        """Forget the teacher's layer: it is not needed any more."""
        self._norm = self._norm and (None,)
