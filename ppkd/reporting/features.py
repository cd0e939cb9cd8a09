"""Student and teacher side by side on validation images: as the training began and as it ended."""

import os

import paddle
from paddle.io import BatchSampler, Sampler

from ppkd.bridge.datasets import open_dataset
from ppkd.bridge.weights import load_exactly
from ppkd.bridge.workspace import create, scope
from ppkd.build import build_model
from ppkd.detectors import detector_for
from ppkd.detectors.recorders import Recorder
from ppkd.detectors.towers import evaluating
from ppkd.engine.teacher_inputs import preparation_for
from ppkd.errors import UserError
from ppkd.training import checkpoint
from ppkd.training.seeds import seed_everything


def batches(config, ids):
    """Batches of the EvalReader with chosen images of the validation set.

    Nothing may be built between two of them: they are read in the config's scope.

    Args:
        config: the run's.
        ids: of the images, in this order.

    Yields:
        ppdet's batch, a dict.
    """
    with scope(config) as table:
        dataset = open_dataset("EvalDataset", config)
        place = {int(record["im_id"][0]): index for index, record in enumerate(dataset.roidbs)}
        size = (table.get("EvalReader") or {}).get("batch_size", 1)
        sampler = BatchSampler(sampler=_Chosen([place[i] for i in ids]), batch_size=size)
        yield from map(dict, create("EvalReader")(dataset, 0, sampler))


def first_batch(material):
    """The first batch of the validation set as the first student's reader makes it."""
    student = next(subject for subject in material.subjects if subject.role != "teacher")
    if "first batch" not in material.built:
        (material.built["first batch"],) = batches(student.config, student.found.images[:1])
    return material.built["first batch"]


class _Chosen(Sampler):
    def __init__(self, indices):
        super().__init__()
        self._indices = indices

    def __iter__(self):
        return iter(self._indices)

    def __len__(self):
        return len(self._indices)


class Pair:
    """The student and the teachers of a distilled run, built as training built them: with the weights it began with.

    Args:
        subject: `material.Subject` of a distilled student.

    Attributes:
        model: `model.DistillModel`.
        specs: `teachers.TeacherSpec` by name.

    Raises:
        UserError: as `build.build_model`.
    """

    def __init__(self, subject):
        self._run = subject.run
        recipe = self._run.recipe
        seed_everything(self._run.seed)
        self.model = build_model(recipe)
        self.specs = recipe.teachers
        self._preparations = {name: preparation_for(recipe.student, spec)[0] for name, spec in recipe.teachers.items()}

    def finish(self, connectors):
        """Go on to the weights that training ended with.

        Args:
            connectors: whether connectors and learnable losses are needed too, which are in the resume file.

        Raises:
            UserError: there is no such file.
        """
        load_exactly(self.model.student, self._run.weights, "student")
        if not connectors or not self.model.distillation.state_dict():
            return
        name = "last" if self._run.which == "last" else "model_final"
        path = os.path.join(self._run.folder, name + checkpoint.RESUME_SUFFIX)
        if not os.path.exists(path):
            raise UserError(f"{path} is not there any more; what the distillation learned beside the student is in it")
        try:
            self.model.distillation.set_state_dict(checkpoint.load(path)["terms"])
        except (KeyError, TypeError, ValueError, AttributeError) as error:
            raise UserError(f"{path}: terms in it are none of this run's ({type(error).__name__})") from error

    def student(self, batch, paths):
        """A `Recorder` of the student's modules at `paths` in eval mode."""
        return recorded(self.model.student, batch, paths)

    def teacher(self, name, batch, paths):
        """A `Recorder` of a teacher's modules, which gets the batch as in training: in its own normalisation."""
        prepare = self._preparations[name]
        return recorded(self.model.teachers[name], prepare(batch) if prepare else batch, paths)


def recorded(model, batch, paths):
    """A `Recorder` of the modules of a detector at `paths` after one pass in eval mode without gradients."""
    parts = {path.split(".")[0] for path in paths}
    with evaluating(model), paddle.no_grad(), Recorder(model, paths) as recorder:
        detector_for(model).run(dict(batch), parts)  # models write into the dict that they get
    return recorder
