"""Rows of whole training steps with full-size networks: ours, the student alone, and ppdet's own distillation.

Ideal is the plain student's step plus the needed part of the teacher's forward. Weights are random (see
`random_weights`), the learning rate is 0, and the batch is the same in every step.
"""

import dataclasses
import os
import tempfile

import paddle

from benchmarks.methods import recipes
from benchmarks.reporting.rows import Row
from benchmarks.study.memory import peak_mb
from benchmarks.study.timing import interleaved
from ppkd.recipe.plan import TEACHER

# Row -> recipe of benchmarks/methods/recipes.py and the sides of its square images.
STEPS = {
    "step_ppyoloe_l_to_m": ("ppyoloe_m", 320),
    "step_gfl_ld": ("gfl_ld", 320),
    "step_gfl_cwd": ("gfl_cwd", 320),
    "step_retinanet_fgd": ("retinanet_fgd", 320),
    "step_yolov3": ("yolov3", 320),
}
SLOWDOWN = "<= 1.04"


def _twin_of_ppyoloe(config):
    parts = {"backbone": "CSPResNet", "neck": "CustomCSPPAN", "yolo_head": "PPYOLOEHead", "post_process": None}
    return {"architecture": "PPYOLOE", "for_distill": True, "PPYOLOE": {**parts, "for_distill": True}}


def _twin_of_gfl(config):
    ld = {"name": "KnowledgeDistillationKLDivLoss", "loss_weight": 0.25, "T": 10}
    losses = {"loss_ld": ld, "loss_ld_vlr": ld, "loss_kd": ld | {"loss_weight": 10, "T": 2}}
    return {"GFL": {**config["GFL"], "head": "LDGFLHead"}, "LDGFLHead": {**config["GFLHead"], **losses}}


# Method -> ppdet's model, and what it wants of a detector's file.
UPSTREAM = {
    "FGD": ("FGDDistillModel", lambda _: {}),
    "CWD": ("CWDDistillModel", lambda _: {}),
    "LD": ("LDDistillModel", _twin_of_gfl),
    "PPYOLOEDistill": ("PPYOLOEDistillModel", _twin_of_ppyoloe),
}


class Steps:
    """Everything of one recipe that takes a step.

    Args:
        name: key of `recipes.RECIPES`.
        size: of the images, in pixels.
        calibrated: whether weights get fitting statistics; without it they are as built, which suffices for memory.
        more: further overrides.
    """

    def __init__(self, name, size, calibrated=True, more=()):
        from ppkd.bridge.datasets import open_dataset
        from ppkd.bridge.workspace import create, scope
        from ppkd.training.loader import TrainLoader

        recipes.SIZE = size
        self.folder = tempfile.mkdtemp()
        self._load = lambda extra: recipes.reduced(name, self._data(size), self.folder, 0, [*more, *extra])
        recipe = self._load([])
        weights = recipes.make_all_weights(recipe, self.folder, 0) if calibrated else {}
        self.recipe = self._load([f"{key}={path}" for key, path in weights.items()])
        # What ppdet's localisation distillation wants of the reader, and ours finds itself.
        for transform in self.recipe.student["TrainReader"]["batch_transforms"]:
            if "Gt2GFLTarget" in transform:
                transform["Gt2GFLTarget"]["compute_vlr_region"] = True
        with scope(self.recipe.student):
            dataset = open_dataset("TrainDataset", self.recipe.student)
            self.batch = next(TrainLoader(create("TrainReader"), dataset, 0, 0).epoch(0))
        self.batch["epoch_id"] = 0

    def _data(self, size):
        folder = os.path.join(self.folder, "shapes")
        if not os.path.isdir(folder):
            from ppkd.data.shapes import generate

            generate(folder, train=12, val=2, size=size, seed=0)
        return folder

    def build(self):
        """A DistillModel in train mode."""
        from ppkd.build import build_model

        model = build_model(self.recipe)
        model.train()
        return model

    def step(self, model):
        """A training step of a model as a function without arguments."""
        optimizer = paddle.optimizer.Momentum(0.0, parameters=[p for p in model.parameters() if not p.stop_gradient])

        def run():
            model(dict(self.batch))["loss"].backward()
            optimizer.step()
            optimizer.clear_grad()

        return run

    def teacher(self, model):
        """The needed part of the teacher's forward, as a function without arguments."""
        ((_, detector),) = model.asked
        parts = {path.split(".")[0] for term in model.terms for tap in term.taps(1) for path in tap.paths}

        def run():
            with paddle.no_grad():
                detector.run(dict(self.batch), parts)

        return run

    def upstream(self):
        """ppdet's own distillation of the same two files, as a model."""
        from ppkd.bridge.workspace import import_ppdet, scope
        from ppkd.files.yaml_io import dump

        import_ppdet()
        import ppdet.slim

        slim = os.path.join(recipes.ROOT, "configs", recipes.RECIPES[self.recipe_name].slim)
        path = os.path.join(self.folder, "slim.yml")
        kind, changes = UPSTREAM.get(self.recipe.method.name, ("DistillModel", lambda _: {}))
        student, teacher = self.recipe.student, self.recipe.teachers[TEACHER].config
        with open(path, "w", encoding="utf-8") as file:
            file.write(dump({"_BASE_": [slim], "pretrain_weights": None, **changes(teacher)}))
        with scope({**student, "pretrain_weights": None, **changes(student)}) as table:
            model = getattr(ppdet.slim, kind)(table, path)
        model.train()
        return model


def opened(name, size, **options):
    steps = Steps(name, size, **options)
    steps.recipe_name = name
    return steps


def sides(steps):
    """Name -> step, and why ppdet's is missing if it is."""
    model = steps.build()
    found = {"ours": steps.step(model), "plain": steps.step(model.student), "teacher": steps.teacher(model)}
    try:
        theirs = steps.upstream()
        found["ppdet"] = steps.step(theirs)
        found["ppdet"]()
        return found, ""
    except Exception as error:  # whatever it dies of is what the row tells
        found.pop("ppdet", None)
        return found, f"ppdet: {type(error).__name__}: {str(error).strip().splitlines()[-1][:80]}"


def whole(group, repeats=5):
    name, size = STEPS[group]
    found, reason = sides(opened(name, size))
    seconds = interleaved(found, repeats, warmup=1)
    ideal, theirs = seconds["plain"] + seconds["teacher"], seconds.get("ppdet")
    note = f"ours by ideal; ppdet's by ideal {theirs / ideal:.2f}" if theirs else f"ours by ideal; {reason}"
    note += f"; plain {seconds['plain']:.2f}, teacher {seconds['teacher']:.2f}"
    return [Row(group.replace("_", " "), seconds["ours"], theirs, ideal, seconds["ours"] / ideal, SLOWDOWN, note=note)]


def idle():
    """Wrapper with all weights 0, and after the stop epoch, beside the plain student."""
    steps = opened("gfl_cwd", 160)
    off, over = steps.build(), steps.build()
    for term in off.terms:
        term.spec.weight = 0.0
    for term in over.terms:
        term.spec.schedule = dataclasses.replace(term.spec.schedule, stop=1)
    over.enter(1)
    found = {"zero": off, "after": over, "plain": off.student, "plain too": over.student}
    seconds = interleaved({key: steps.step(model) for key, model in found.items()}, repeats=9, warmup=1)
    rows = []
    for key, plain, name in (("zero", "plain", "all weights 0"), ("after", "plain too", "after the stop epoch")):
        ratio = seconds[key] / seconds[plain]
        rows.append(Row(name, seconds[key], None, seconds[plain], ratio, "<= 1.02", note="GFL CWD, by the plain step"))
    return rows


def memory_side(name, size, side):
    """Builds a side; the step that is measured is the second one."""
    steps = opened(name, size, calibrated=False, more=["teacher.pretrain_weights=WEIGHTS"])
    import ppkd.build

    ppkd.build.load_teacher = lambda *_: "random weights"
    steps.recipe.student["pretrain_weights"] = None
    if side == "ppdet":
        model = steps.upstream()
    elif side == "plain":
        model = ppkd.build.build_student(steps.recipe)
        model.train()
    else:
        model = steps.build()
    run = steps.step(model)

    def twice():
        run()
        run()

    return twice


def step_memory():
    rows = []
    for group in ("step_ppyoloe_l_to_m", "step_gfl_cwd", "step_retinanet_fgd"):
        rows += _memory_of(group)
    return rows


def _memory_of(group):
    name, size = STEPS[group]
    where = "benchmarks.engine.steps:memory_side"
    mb = {}
    for side in ("ours", "plain", "ppdet"):
        try:
            mb[side] = peak_mb(where, name, size, side, whole_process=True)
        except RuntimeError:
            mb[side] = None
    teacher, maps = _teacher_and_maps(name, size)
    ideal = mb["plain"] + teacher + maps
    note = f"ours by plain {mb['plain']:.0f} + teacher's weights {teacher:.0f} + recorded maps {maps:.0f} MB"
    return [
        Row(f"memory of {group}".replace("_", " "), None, None, None, mb["ours"] / ideal, "<= 1.1",
            mb["ours"], mb["ppdet"], note)
    ]  # fmt: skip


def _teacher_and_maps(name, size):
    """MB of the teacher's weights and of what the terms record of it."""
    import ppkd.build

    steps = opened(name, size, calibrated=False, more=["teacher.pretrain_weights=WEIGHTS"])
    load, ppkd.build.load_teacher = ppkd.build.load_teacher, lambda *_: "random weights"
    steps.recipe.student["pretrain_weights"] = None
    model = steps.build()
    ppkd.build.load_teacher = load
    (teacher,) = model.teachers.values()
    weights = sum(x.size * 4 for x in [*teacher.parameters(), *teacher.buffers()])
    recorded, _ = model.asked.run(dict(steps.batch), [term for term, _ in model.active_terms()], None)
    (recorder,) = recorded.values()
    taps = {tap for term in model.terms for tap in term.taps(1)}
    maps = sum(recorder.take(tap).size * 4 for tap in taps)
    return float(weights) / 1e6, float(maps) / 1e6


def teacher_forms():
    """The forward of a teacher's backbone as it is, compiled, and in bfloat16."""
    steps = opened("ppyoloe_m", 320, calibrated=False, more=["teacher.pretrain_weights=WEIGHTS"])
    import ppkd.build

    ppkd.build.load_teacher = lambda *_: "random weights"
    steps.recipe.student["pretrain_weights"] = None
    (teacher,) = steps.build().teachers.values()
    image = paddle.rand([2, 3, 320, 320])

    def plain(x=image):
        with paddle.no_grad():
            return teacher.backbone({"image": x})

    shape = paddle.static.InputSpec(image.shape, "float32")
    static = paddle.jit.to_static(lambda x: teacher.backbone({"image": x}), input_spec=[shape])

    def compiled():
        with paddle.no_grad():
            return static(image)

    def half():
        with paddle.amp.auto_cast(dtype="bfloat16"):
            return plain()

    seconds = interleaved({"as it is": plain, "to_static": compiled, "bfloat16": half}, repeats=5)
    usual = seconds["as it is"]
    note = "by the usual forward, PP-YOLOE+ l's backbone"
    return [Row(f"teacher, {name}", s, None, usual, s / usual, note=note) for name, s in seconds.items()]


GROUPS = {name: (lambda name=name: whole(name)) for name in STEPS}
GROUPS |= {"step_idle": idle, "step_memory": step_memory, "teacher_forms": teacher_forms}
