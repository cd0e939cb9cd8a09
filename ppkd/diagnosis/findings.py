"""What the doctor can find: a stable id each, how grave it is, and what to do about it (docs/doctor.md)."""

from dataclasses import dataclass, field, replace

from ppkd.bridge.kinds import ERROR, LEVELS, NOTE, WARNING
from ppkd.errors import UserError, nearest

__all__ = ["ERROR", "KINDS", "LEVELS", "NOTE", "WARNING", "Finding", "Findings", "Kind"]


@dataclass(frozen=True)
class Kind:
    """A kind of finding.

    Attributes:
        levels: those that it can have, the usual one first.
        advice: what to do; may name fields in braces that a finding fills in.
    """

    levels: tuple
    advice: str


KINDS = {
    "build-failed": Kind((ERROR,), "Mend what the message names; training would stop at the same place."),
    "teacher-untrained": Kind((ERROR,), "Give its weights: -o {key}=PATH."),
    "teacher-weights": Kind(
        (ERROR,), "Give the weights that belong to the config of the slim file's _BASE_, or the config to the weights."
    ),
    "teacher-head": Kind(
        (WARNING,), "If the teacher is a whole detector, its weights and its config do not belong together."
    ),
    "student-weights": Kind((WARNING,), "Check pretrain_weights: they seem to be of another backbone."),
    "student-random": Kind((NOTE,), "Usual, but weights of a trained backbone (pretrain_weights) save epochs."),
    "data-classes": Kind((ERROR,), "List the categories in the same order in both annotation files."),
    "unused-classes": Kind((WARNING,), "Set num_classes: {count}, or num_classes: auto."),
    "classes-number": Kind(
        (ERROR, WARNING),
        "Take a teacher that was trained on your classes, or compare features alone (FGD, PKD, MGD, CWD on the neck) "
        "with distill.inherit=false.",
    ),
    "class-names": Kind((WARNING, ERROR), "Take a teacher of your classes, or compare features alone."),
    "class-order": Kind(
        (ERROR, WARNING),
        "Put the categories of your annotation files into the teacher's order, or train the teacher on these files; "
        "until then do not compare class scores.",
    ),
    "classes-unknown": Kind((NOTE,), "Look yourself whether the teacher was trained on your classes in your order."),
    "classes-missing": Kind(
        (WARNING,),
        "If it has them under other names, detections.names says what its classes are called; the data set's own "
        "names are needed there.",
    ),
    "accuracy-not-measured": Kind((WARNING,), "Evaluate the teacher with ppkd eval before the run."),
    "teacher-near-zero": Kind(
        (ERROR,),
        "Evaluate it alone (ppkd eval with its own config): wrong weights, other classes, other data, or too "
        "short a training.",
    ),
    "teacher-not-better": Kind((WARNING,), "Take a better teacher; this one has little to tell."),
    "teacher-weak": Kind(
        (WARNING,), "Train it longer, or take a larger one: a student seldom gets beyond its teacher."
    ),
    "student-starts-high": Kind((NOTE,), "Compare with plain training from the same start, not from random weights."),
    "train-eval-normalisation": Kind(
        (ERROR, WARNING), "Write the same NormalizeImage into TrainReader and EvalReader."
    ),
    "teacher-normalisation": Kind(
        (ERROR,),
        "Set the NormalizeImage that the teacher was trained with: -o teacher.TrainReader.batch_transforms=...",
    ),
    "normalisation-unknown": Kind((WARNING,), "Give the teacher's config the reader that it was trained with."),
    "teacher-input-translated": Kind((NOTE,), "Nothing: that is done for it."),
    "input-range": Kind((ERROR,), "Let NormalizeImage stand once in TrainReader, and nothing else scale the pixels."),
    "level-left-out": Kind((NOTE,), "Nothing, unless you meant these levels to be taught."),
    "strides-differ": Kind((WARNING, NOTE), "If there is a source or a teacher with these strides, name it."),
    "broken-weights": Kind((ERROR,), "Take another snapshot of it: this one's training had broken down."),
    "step-failed": Kind((ERROR,), "Mend what the message says; look at the other errors first."),
    "not-finite": Kind((ERROR,), "Lower the learning rate or the weight; look at the part that the message names."),
    "dead-source": Kind((ERROR,), "Take another source (ppkd layers lists them); if none lives, check the weights."),
    "constant-channels": Kind((WARNING,), "Check the teacher's weights and its images' normalisation."),
    "student-constant": Kind((NOTE,), "Nothing: heads often start so; it changes with the first steps."),
    "zero-head": Kind((NOTE,), "Nothing: it changes with the first steps."),
    "share-of-nothing": Kind((NOTE,), "Nothing: it counts as soon as there is a gradient."),
    "no-gradient": Kind((ERROR, WARNING), "Take another source, or leave this level out (max_levels, neck[s8])."),
    "term-too-strong": Kind(
        (ERROR, WARNING),
        "Lower its weight about {factor:.0f} times, or let -o distill.terms.{term}.magnitude=20% do it.",
    ),
    "term-negligible": Kind((WARNING,), "Raise its weight, or let -o distill.terms.{term}.magnitude=20% do it."),
    "term-outside-rule": Kind((NOTE,), "The magnitude finds a weight: -o distill.terms.{term}.magnitude=1.0."),
    "term-opposed": Kind(
        (WARNING,), "Lower its weight (-o distill.terms.{term}.magnitude=10%), or start it later (start_epoch)."
    ),
    "attention-saturated": Kind((WARNING,), "Raise temp, or standardise the maps (normalize: true)."),
    "attention-flat": Kind((NOTE,), "A lower temp makes FGD's attention choose."),
    "unlabelled-far": Kind(
        (WARNING,), "Look at some of them: features may still teach, labels that the teacher makes will be poor."
    ),
    "unlabelled-empty": Kind((WARNING,), "Are these images of what the teacher knows? Look at some of them."),
    "unlabelled-classes": Kind((NOTE,), "What they teach of these classes is that there is nothing."),
    "pseudo-boxes-wrong": Kind((WARNING,), "Raise distill.pseudo_boxes.threshold, or leave F1 to choose it."),
    "batch-fits": Kind((NOTE,), "--batch {batch}, with -o scale_lr=true where the file has a total_batch_size."),
    "bank-too-large": Kind(
        (ERROR,), "Raise distill.bank.gigabytes, have fewer views, or let `on_failure: live` go on without a bank."
    ),
    "loading-slow": Kind((NOTE,), "Raise worker_num: training waits for its images."),
}


@dataclass(frozen=True)
class Finding:
    """Something found.

    Attributes:
        id: a key of `KINDS`.
        level: ``error`` (do not start), ``warning`` (look at it first) or ``note``.
        text: a sentence.
        advice: what to do.
    """

    id: str
    level: str
    text: str
    advice: str


@dataclass
class Findings:
    """All findings of an examination, in the order in which they were made."""

    items: list = field(default_factory=list)

    def add(self, name, text, level=None, **fields):
        """Note a finding.

        Args:
            name: its id.
            text: the sentence.
            level: one of the kind's; its usual one if not given.
            fields: for the braces in the advice.
        """
        kind = KINDS[name]
        level = level or kind.levels[0]
        if level not in kind.levels:
            raise ValueError(f"{name} is never a {level}")
        self.items.append(Finding(name, level, text, kind.advice.format(**fields)))

    def waive(self, names):
        """Take findings for notes that somebody knows of.

        Args:
            names: ids.

        Raises:
            UserError: there is no such finding.
        """
        for name in names:
            if name not in KINDS:
                raise UserError(f"--waive {name}: there is no such finding{nearest(name, KINDS)} (docs/doctor.md)")
        self.items = [
            replace(item, level=NOTE, text=f"waived: {item.text}") if item.id in names else item for item in self.items
        ]

    def of(self, level):
        """Those of a level."""
        return [item for item in self.items if item.level == level]

    def ids(self, *levels):
        """Ids of those of some levels, each once."""
        return list(dict.fromkeys(item.id for item in self.items if item.level in levels))
