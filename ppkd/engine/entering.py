"""How a term's gradient stands to the detection loss's where it enters the student's own layers: in its sources.

That is where a term's pull can be told from the detection loss's at the price of a head and a loss: no backward pass
through the student's body is needed.
"""

from dataclasses import dataclass

import paddle
from paddle import nn

from ppkd.engine.balance import gradient
from ppkd.losses.common import full_precision
from ppkd.losses.ranks import summed


@dataclass(frozen=True)
class Entering:
    """Both gradients in a term's sources, of all its levels and of all ranks together; scalars without gradient.

    Attributes:
        term: norm of the term's gradient, before any weight.
        own: norm of the detection loss's.
        cosine: between the two, -1 to 1: below 0 the term pulls against the detection loss. Not a number if one is 0.
    """

    term: object
    own: object
    cosine: object


def measure(student, lines, own):
    """Measure what lines of a plan do to the student; neither the graph nor any parameter's ``grad`` is changed.

    Args:
        student: ppdet model, after its forward.
        lines: name -> ``(value, sources)``: a scalar with its graph, and the student's tensors that it comes from.
        own: the student's own loss.

    Returns:
        Name -> `Entering`. A line that has no gradient in its sources is left out.
    """
    lines = {name: (value, _different(sources)) for name, (value, sources) in lines.items()}
    lines = {name: line for name, line in lines.items() if line[1] and not line[0].stop_gradient}
    every = {id(x): x for _, sources in lines.values() for x in sources}
    if not lines or own.stop_gradient:
        return {}
    beside = _beside(student)
    of_own = dict(zip(every, gradient(own, [*every.values()], beside)))
    sums = _products(lines, of_own, beside)
    (sums,) = summed([paddle.stack(sums)])
    return {name: _entering(*row.unbind()) for name, row in zip(lines, sums.unbind())}


@full_precision
def _products(lines, of_own, beside):
    """Of each line: its gradient times the own one, and the squares of both."""
    found = []
    for value, sources in lines.values():
        of_term = gradient(value, sources, beside)
        pairs = [(x, of_own[id(source)]) for source, x in zip(sources, of_term)]
        squares = (_dots(*((y, y) for _, y in pairs)), _dots(*((x, x) for x, _ in pairs)))
        found.append(paddle.stack([_dots(*pairs), *squares]))
    return found


def _different(sources):
    """Those with a gradient, each once: what one map packs together is several sources of a term."""
    return list({id(x): x for x in sources if not x.stop_gradient}.values())


def _entering(dot, own, term):
    return Entering(term.sqrt(), own.sqrt(), dot / (term.sqrt() * own.sqrt()))


def _dots(*pairs):
    """The sum of the products of pairs of gradients, either of which may be None: it is 0 then."""
    total = paddle.zeros([])
    for x, y in pairs:
        if x is not None and y is not None:
            total = total + paddle.dot(*(z.detach().astype("float32").flatten() for z in (x, y))).reshape([])
    return total


def _beside(student):
    """Parameters that have to be asked for, for what Paddle does on the CPU where they are not.

    Its layer_norm passes on a gradient without its scale where the scale's own is not asked for. Its grid_sample ends
    the process where the gradient of the places is asked for and that of what is sampled is not: so of one query of a
    decoder in another. Those of the backbone come before any source but its own.
    """
    found = []
    for name, x in student.named_sublayers():
        if isinstance(x, nn.LayerNorm) and not name.startswith("backbone"):
            found.append(x.weight)
        elif hasattr(x, "sampling_offsets") and hasattr(x, "value_proj"):
            found.append(x.value_proj.weight)
    return [x for x in found if not x.stop_gradient]


class LettingGo(nn.Layer):
    """When a term has stopped helping (``stop: auto``).

    Where gradients are measured, the cosine between its gradient and the detection loss's is looked at. When the mean
    of the last `WINDOW` of them is 0 or below, what the term asks for does not go with what the labels ask for any
    more, and it ends with that epoch, for good.
    """

    WINDOW = 3

    def __init__(self):
        super().__init__()
        # The last cosines, how many there have been, and the first epoch without the term, -1 while there is none.
        self.register_buffer("cosines", paddle.zeros([self.WINDOW]))
        self.register_buffer("seen", paddle.zeros([1], "int64"))
        self.register_buffer("gone", paddle.full([1], -1, "int64"))

    def look(self, cosine, epoch):
        """Count the cosine of an epoch, without the host looking at any value."""
        with paddle.no_grad():
            counts = paddle.isfinite(cosine)
            later = paddle.concat([self.cosines[1:], cosine.reshape([1])])
            paddle.assign(paddle.where(counts, later, self.cosines), self.cosines)
            paddle.assign(self.seen + counts.astype("int64"), self.seen)
            ends = (self.seen >= self.WINDOW).logical_and(self.cosines.mean() <= 0).logical_and(self.gone < 0)
            paddle.assign(paddle.where(ends, paddle.full([1], epoch + 1, "int64"), self.gone), self.gone)

    def over(self, epoch):
        """Whether the term is over from `epoch` on. The host waits for the device here."""
        return 0 <= int(self.gone) <= epoch
