"""All that a distillation trains or counts beside the student."""

import contextlib

from paddle import nn

from ppkd.engine import entering
from ppkd.engine.beside import Beside
from ppkd.engine.build_terms import build_terms
from ppkd.engine.magnitude import Magnitude
from ppkd.errors import UserError, nearest
from ppkd.terminal.log import logger

# What is less than this share of the detection loss is next to nothing.
FAINT = 1e-4


class Distillation(nn.Layer):
    """All that a distillation trains or counts beside the student: what a run's resume state keeps of it.

    Args:
        plan: `plan.Plan`.
        student: `detectors.Detector`.
        senders: list of `terms.Sender`.
        beside: whether the run has images without labels.

    Attributes:
        terms: all `terms.Term`, one a line of the plan, a teacher and a level.
        magnitudes: one `magnitude.Magnitude` a line and teacher that has a target.
        endings: one `entering.LettingGo` a line and teacher with ``stop: auto``.
        boxes: `pseudo_boxes.TeacherBoxes`, or None.
    """

    def __init__(self, plan, student, senders, beside=False):
        super().__init__()
        self.terms, self.magnitudes, self.endings = nn.LayerList(), nn.LayerList(), nn.LayerList()
        self.boxes = None
        # By a term's label the name of its line and teacher; by that name the numbers in the two lists, and what ended.
        self._line_of, self._magnitude_of, self._ending_of, self._ended, self._faint = {}, {}, {}, set(), set()
        with contextlib.ExitStack() as stack:
            for detector in (student, *(sender.detector for sender in senders)):
                stack.enter_context(detector.looked_at_once())
            self._add_all(plan, student, senders, Beside(beside, bool(plan.pseudo_boxes)))

    def _add_all(self, plan, student, senders, beside):
        names = [sender.name for sender in senders]
        for spec in plan.terms:
            for name in spec.teachers or ():
                if name not in names:
                    raise UserError(
                        f"distill.terms.{spec.name}.from: there is no teacher {name!r}{nearest(name, names)}; "
                        f"there is {', '.join(names)}"
                    )
            for sender in senders:
                if spec.teachers is None or sender.name in spec.teachers:
                    self._add(spec, student, sender, len(senders) == 1, beside)

    def _add(self, spec, student, sender, alone, beside):
        try:
            made = build_terms(spec, student, sender, alone, beside)
        except UserError as error:
            told = str(error).startswith((f"{spec.name}:", f"{spec.name}."))
            raise UserError(f"distill.terms.{'' if told else f'{spec.name}: '}{error}") from error
        self.terms.extend(made)
        name = spec.name if alone else f"{spec.name}.{sender.name}"
        self._line_of |= {term.label: name for term in made}
        if spec.magnitude is not None:
            self._magnitude_of[name] = len(self.magnitudes)
            self.magnitudes.append(Magnitude(spec.magnitude))
        if spec.schedule.auto:
            self._ending_of[name] = len(self.endings)
            self.endings.append(entering.LettingGo())

    def let_go(self):
        """Forget what connectors hold of the teachers."""
        for layer in self.sublayers():
            if hasattr(layer, "let_go"):
                layer.let_go()

    def enter(self, epoch):
        """Begin an epoch: lines with ``stop: auto`` end if the epochs before say so."""
        for name, number in self._ending_of.items():
            ending = self.endings[number]
            if name not in self._ended and ending.over(epoch):
                self._ended.add(name)
                logger().info(
                    "epoch %d: term %s is over (stop: auto): the cosine of its gradient and the detection loss's was "
                    "%.3f on the mean of %d measurements", epoch + 1, name, float(ending.cosines.mean()), ending.WINDOW,
                )  # fmt: skip

    def turned(self, epoch):
        """Names of the lines whose strength changes by much as `epoch`, which was entered, begins."""
        ended = [name for name, number in self._ending_of.items() if int(self.endings[number].gone) == epoch]
        lines = [(self._line_of[term.label], term) for term in self.terms]
        turned = [name for name, term in lines if term.turns(epoch) and name not in self._ended]
        return list(dict.fromkeys([*ended, *turned]))

    def over(self, term, epoch):
        """Whether the term's weight is 0 from `epoch` on, for good."""
        return self._line_of[term.label] in self._ended or term.over(epoch)

    def measure(self, student, compared, own, recorder, clock, watched):
        """Measure gradients where a magnitude or an ending needs them, or those of all lines.

        Args:
            student: ppdet model.
            compared: list of ``(term, weight, parts)``.
            own: the student's own loss.
            recorder: `recorders.Recorder` of the student after the step.
            clock: `context.Clock` of the step.
            watched: whether it is the one step of this epoch in which everything is measured.

        Returns:
            Name of a line -> `entering.Entering`.
        """
        lines, ages = {}, {}
        for term, _, values in compared:
            name, age = self._line_of[term.label], term.age(clock)
            magnitude = self._magnitude(name)
            if watched or (magnitude is not None and magnitude.due(age)):
                value, sources = lines.get(name, (0.0, []))
                sources += [x for tap in term.taps(0) for x in recorder.made_by_the_model(tap)]
                lines[name], ages[name] = (value + sum(values.values()), sources), age
        found = entering.measure(student, lines, own) if lines else {}
        for name, each in found.items():
            magnitude = self._magnitude(name)
            if magnitude is not None and magnitude.target.gradient:
                magnitude.look(each, ages[name])
            if watched and name in self._ending_of:
                self.endings[self._ending_of[name]].look(each.cosine, clock.epoch)
        return found

    def pulls(self, weighted, found):
        """Name of a line -> ``(share, cosine)`` of what `measure` found, with the weights that `weighted` gave."""
        weights = {self._line_of[term.label]: weight for term, weight, _ in weighted}
        return {name: (weights[name] * each.term / each.own, each.cosine) for name, each in found.items()}

    def sizes(self, weighted, own):
        """Of each line that is brought to a share of gradients its weighted value over the detection loss."""
        found = {}
        for term, weight, values in weighted:
            name = self._line_of[term.label]
            if (magnitude := self._magnitude(name)) is not None and magnitude.target.gradient:
                found[name] = found.get(name, 0.0) + sum(x.detach() for x in values.values()) * weight / own.detach()
        return found

    def let_all_count(self):
        """Let shares of a gradient that was not there yet be factors of 1, to see what their terms would do."""
        for magnitude in self.magnitudes:
            magnitude.stand_in()

    def tell_faint(self, sizes):
        """Tell once of each of `sizes` that is next to nothing: the term teaches nothing, and no number shows it."""
        for name, size in sizes.items():
            if float(size) < FAINT and name not in self._faint:
                self._faint.add(name)
                logger().warning(
                    "term %s: its share of the gradient makes it %.1g of the detection loss, since next to nothing of "
                    "that loss's gradient reaches its sources: no object on this level? Take another one, or a share "
                    "of the loss (magnitude: 5%%)", name, float(size),
                )  # fmt: skip

    def weighted(self, compared, own, clock):
        """Put the factor of its magnitude into the weight of each term that has one.

        Args:
            compared: list of ``(term, weight, parts)``.
            own: the student's own loss.
            clock: `context.Clock` of the step.

        Returns:
            The same list with the weights to be used.
        """
        sums, factors = {}, {}
        for term, _, values in compared:
            name = self._line_of[term.label]
            magnitude = self._magnitude(name)
            if magnitude is None or name in factors:
                continue
            if magnitude.target.gradient or magnitude.frozen(term.age(clock)):
                factors[name] = magnitude.factor()
            else:
                sums[name] = sums.get(name, 0.0) + sum(value.detach() for value in values.values())
        factors |= {name: self._magnitude(name)(value, own) for name, value in sums.items()}
        return [
            (term, factors[name] * term.share(clock.epoch) * term.outweighs(clock.batches), values)
            if (name := self._line_of[term.label]) in factors
            else (term, weight, values)
            for term, weight, values in compared
        ]

    def _magnitude(self, name):
        return self.magnitudes[self._magnitude_of[name]] if name in self._magnitude_of else None
