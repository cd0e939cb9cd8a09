"""A term whose two decoders decode the same queries (KD-DETR: Wang et al., CVPR 2024)."""

import paddle
from paddle import nn

from ppkd.detectors.queries import Queries, apart
from ppkd.engine.beside import NOTHING
from ppkd.engine.terms import Term
from ppkd.errors import UserError
from ppkd.losses.sets import best


class SharedQueriesTerm(Term):
    """As `terms.Term`; but its loss gets what both decoders make of queries that are the same, not of their own.

    The queries are some that are drawn and the best of the teacher's own; either of the two groups sees only itself.
    They are decoded together: it costs one more forward of the decoder on each side. Where the student's are of another
    width they go through a trained linear layer.
    """

    def __init__(self, spec, pairs, constants=None, sender=None, alone=True, student=None, beside=NOTHING):
        asked = [getattr(detector, "asked", None) for detector in (student, sender.detector)]
        for side, detector, each in zip(("student", "teacher"), (student, sender.detector), asked):
            if each is None:
                kind = type(getattr(detector.model, "transformer", detector.model)).__name__
                raise UserError(f"{spec.name}: shared_queries knows no decoder of the {side}'s {kind}; {_INSTEAD}")
        if asked[0].form != asked[1].form:
            raise UserError(
                f"{spec.name}: the student's decoder is asked by {asked[0].form}, the teacher's by {asked[1].form}: "
                f"the same queries cannot be given to both; {_INSTEAD}"
            )
        self._student, self._teacher = student, sender.detector
        super().__init__(spec, pairs, constants, sender, alone, student, beside)

    def _connect(self, pair, sides):
        super()._connect(pair, sides)
        ours, theirs = self._student.asked.width, self._teacher.asked.width
        if ours != theirs and not hasattr(self, "narrow"):
            self.narrow = nn.LayerDict({name: nn.Linear(theirs, ours) for name in ("content", "position")})

    def let_go(self):
        """Forget the teacher."""
        self._teacher = None

    def taps(self, side):
        """See `Term.taps`; of the student what its decoder is given."""
        return [*self._teacher.asked.taps, *super().taps(1)] if side else list(self._student.asked.decoding)

    def compare(self, student, teacher, context):
        """See `Term.compare`."""
        (theirs, queries), _ = teacher
        return self(self._redecoded(self._student, student, self._narrowed(queries), 0), theirs, context)

    def take(self, student, teacher):
        """What either decoder makes of the same queries, at the layers that are compared."""
        theirs, queries = self.of_teacher(teacher)[0]
        return [self._redecoded(self._student, student, self._narrowed(queries), 0), theirs]

    def of_teacher(self, recorder):
        """What the teacher makes of queries, and these, for `compare`."""
        with paddle.no_grad(), self._teacher.block():
            queries = self._queries(recorder)
            return (self._redecoded(self._teacher, recorder, queries, 1), queries), False

    @property
    def keeps(self):
        """See `Term.keeps`: what the teacher makes of queries, and these."""
        begin = f"{self.teacher} {self.label} {self.loss.general} {self.loss.specific}"
        layers = [level.source for _, levels in self.pairs for level in levels]
        return [f"{begin} {name}" for name in (*layers, *self._student.asked.fields)]

    def to_keep(self, recorder):
        """See `Term.to_keep`."""
        (theirs, queries), _ = self.of_teacher(recorder)
        tensors = [x for each in theirs for x in each] + [getattr(queries, k) for k in self._student.asked.fields]
        return dict(zip(self.keeps, tensors))

    def from_kept(self, found):
        """See `Term.from_kept`."""
        names = iter(self.keeps)
        theirs = [[found[next(names)] for _ in levels] for _, levels in self.pairs]
        return (theirs, Queries(**{field: found[next(names)] for field in self._student.asked.fields})), False

    def _redecoded(self, detector, recorder, queries, side):
        made = detector.redecode(recorder, queries, apart([queries.count - self.loss.general, self.loss.general]))
        return [[made[level.source] for level in pair[side]] for pair in self.pairs]

    def _queries(self, recorder):
        """The best of the teacher's own, and behind them those that are drawn."""
        asked, found = self._teacher.asked, None
        if self.loss.specific != 0:
            scores = recorder.take(self.pairs[-1][1][0].tap)
            count = scores.shape[1] if self.loss.specific is None else min(self.loss.specific, scores.shape[1])
            found = asked.own(recorder).best(best(scores, count))
        if self.loss.general:
            drawn = asked.drawn(recorder, self.loss.general)
            found = found.beside(drawn) if found else drawn
        return found.map(lambda x: x.astype("float32"))

    def _narrowed(self, queries):
        for name, layer in self.narrow.items() if hasattr(self, "narrow") else ():
            queries = queries.map(layer, (name,))
        return queries


_INSTEAD = "detr_match compares what each makes of its own"
