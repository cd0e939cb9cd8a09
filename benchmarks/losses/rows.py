"""Rows of single losses, forward and backward, on random maps beside ppdet's."""

import functools

import paddle

from benchmarks.reporting.rows import Row
from benchmarks.study.memory import peak_mb
from benchmarks.study.timing import interleaved

# The finest level of an FPN with 256 channels at 800 x 1333 pixels, two images.
SHAPE = (2, 256, 100, 168)
SMALLER = (2, 256, 50, 84)
FRAME, PADDED = (800.0, 1333.0), (800, 1344)
STRIDES = (8, 16, 32, 64, 128)
CLASSES, BINS = 80, 17


def maps(shape=SHAPE):
    """The student's map, with a gradient, and the teacher's."""
    paddle.seed(0)
    student, teacher = paddle.randn(shape), paddle.randn(shape)
    student.stop_gradient = False
    return student, teacher


def boxes(number, batch=2):
    """Boxes (N, M, 4) of all sizes within the image."""
    paddle.seed(1)
    corner = paddle.rand([batch, number, 2]) * paddle.to_tensor([1000.0, 600.0])
    return paddle.concat([corner, corner + 8 + paddle.rand([batch, number, 2]) * 190], axis=2)


def step(student, loss, *layers):
    """Forward and backward, as a function without arguments; gradients of the last time are dropped first."""

    def run():
        for x in student if isinstance(student, list) else [student]:
            x.clear_gradient(False)
        for layer in layers:
            for parameter in layer.parameters():
                parameter.clear_gradient(False)
        loss().backward()

    return run


def fgd(side, number=10, shape=SHAPE):
    student, teacher = maps(shape)
    found, sizes = boxes(number, shape[0]), paddle.to_tensor([FRAME] * shape[0])
    if side == "ours":
        from ppkd.losses import FGDLoss

        loss, valid = FGDLoss(shape[1]), paddle.ones(found.shape[:2])
        return step(student, lambda: sum(loss(student, teacher, found, valid, sizes, PADDED).values()), loss)
    loss = upstream().FGDFeatureLoss(shape[1], shape[1])
    inputs = {"gt_bbox": list(found), "im_shape": sizes}
    return step(student, lambda: loss(student, teacher, inputs), loss)


def fgd_levels(side="ours", first=0):
    """FGD of the five levels of an FPN, or of those from `first` on, together as in a step; ours alone."""
    from ppkd.losses import FGDLoss

    shapes = [(*SHAPE[:2], *size) for size in ((100, 168), (50, 84), (25, 42), (13, 21), (7, 11))][first:]
    students, teachers = (list(side) for side in zip(*map(maps, shapes)))
    losses, found = [FGDLoss(SHAPE[1]) for _ in shapes], boxes(10)
    rest = found, paddle.ones(found.shape[:2]), paddle.to_tensor([FRAME] * SHAPE[0]), PADDED
    together = functools.partial(FGDLoss.together, losses, students, teachers, *rest)
    return step(students, lambda: paddle.add_n([x for parts in together() for x in parts.values()]), *losses)


def feature(side, name, shape=SHAPE):
    """CWD, PKD or MGD."""
    student, teacher = maps(shape)
    if side == "ours":
        from ppkd.losses import LOSSES

        loss = LOSSES[name](shape[1]) if name == "mgd" else LOSSES[name]()
    else:
        # MGD of either side compares maps as they are.
        more = {"normalize": False} if name == "mgd" else {}
        loss = getattr(upstream(), f"{name.upper()}FeatureLoss")(shape[1], shape[1], **more)
    return step(student, lambda: loss(student, teacher), loss)


def ld(side):
    """The distillation of GFL's head, all five levels, 10 boxes an image.

    Ours finds positives and region itself, which ppdet's reader does beforehand (on other cores): its time is in a row
    of its own, not in ppdet's column.
    """
    paddle.seed(0)
    sizes = [(-(-PADDED[0] // stride), -(-PADDED[1] // stride)) for stride in STRIDES]
    heads = [[[paddle.randn([2, c, *size]) for size in sizes] for c in (CLASSES, 4 * BINS)] for _ in range(2)]
    student, teacher = heads
    for x in student[0] + student[1]:
        x.stop_gradient = False
    found, valid = boxes(10), paddle.ones([2, 10])
    leaves = student[0] + student[1]
    if side == "ours":
        from ppkd.losses import LDLoss

        loss = LDLoss()
        return step(leaves, lambda: sum(loss(student, teacher, found, valid, STRIDES, 0.5).values()), loss)
    from ppkd.losses.atss import atss_regions, square_anchors

    counts = [h * w for h, w in sizes]
    assigned, region = atss_regions(square_anchors(sizes, STRIDES, 8.0, 0.5), counts, found, valid)
    assigned, region = (x.split(counts, axis=1) for x in (assigned, region))
    return step(leaves, functools.partial(_ld_of_ppdet, student, teacher, assigned, region))


def _ld_of_ppdet(student, teacher, assigned, region):
    """The lines of ``LDGFLHead.get_loss`` that are about distillation, with the losses of its recipe."""
    kl = upstream().KnowledgeDistillationKLDivLoss
    loss_ld, loss_vlr, loss_kd = (kl(loss_weight=weight, T=temp) for weight, temp in ((0.25, 10), (0.25, 10), (10, 2)))
    total = 0.0
    for cls, box, soft_cls, soft_box, labels, vlr in zip(*student, *teacher, assigned, region):
        cls, soft_cls = (x.transpose([0, 2, 3, 1]).reshape([-1, CLASSES]) for x in (cls, soft_cls))
        box, soft_box = (x.transpose([0, 2, 3, 1]).reshape([-1, 4 * BINS]) for x in (box, soft_box))
        vlr = vlr.reshape([-1])
        positive, remain = labels.reshape([-1]).nonzero().squeeze(1), (vlr > 0).nonzero()
        if len(positive) > 0:
            score = paddle.nn.functional.sigmoid(cls.detach())
            score = paddle.gather(score.max(axis=1, keepdim=True), positive, axis=0).expand([-1, 4]).reshape([-1])
            edges = [paddle.gather(x, positive, axis=0).reshape([-1, BINS]) for x in (box, soft_box)]
            classes = [paddle.gather(x, positive, axis=0) for x in (cls, soft_cls)]
            total = total + loss_ld(*edges, weight=score, avg_factor=4.0)
            weight = paddle.ones([positive.shape[0]])
            total = total + loss_kd(*classes, weight=weight, avg_factor=positive.shape[0])
        if len(remain) > 0:
            edges = [x[remain].reshape([-1, BINS]) for x in (box, soft_box)]
            weight = vlr[remain].expand([-1, 4]).reshape([-1])
            total = total + loss_vlr(*edges, weight=weight, avg_factor=16.0)
    return total


def upstream():
    """``ppdet.slim``."""
    from ppkd.bridge.workspace import import_ppdet

    import_ppdet()
    import ppdet.slim

    return ppdet.slim


def _pair(name, build, *args, target=None, memory=None):
    """Rows of time and of peak memory, ours beside ppdet's."""
    seconds = interleaved({side: globals()[build](side, *args) for side in ("ours", "ppdet")})
    mb = {side: peak_mb(f"benchmarks.losses.rows:{build}", side, *args) for side in seconds}
    ours, theirs = seconds["ours"], seconds["ppdet"]
    rows = [Row(name, ours, theirs, None, theirs / ours, target, mb["ours"], mb["ppdet"], "ppdet's time by ours")]
    if memory:
        note = "our peak memory by ppdet's"
        rows.append(
            Row(f"{name} memory", None, None, None, mb["ours"] / mb["ppdet"], memory, mb["ours"], mb["ppdet"], note)
        )
    return rows


def loss_fgd():
    return _pair("loss fgd", "fgd", 10, target=">= 6", memory="<= 0.333")


def loss_fgd_boxes():
    return fgd_of_boxes((1, 100), "<= 1.1")


def fgd_of_boxes(numbers, target=None):
    """Rows of FGD with that many boxes an image; `target` is the last one's."""
    seconds = interleaved({f"{side} {n}": fgd(side, n) for n in numbers for side in ("ours", "ppdet")}, repeats=5)
    rows = []
    for n in numbers:
        ours, theirs = seconds[f"ours {n}"], seconds[f"ppdet {n}"]
        flat = ours / seconds[f"ours {numbers[0]}"]
        note = f"our time by that of {numbers[0]} box"
        rows.append(
            Row(f"loss fgd, {n} boxes", ours, theirs, None, flat, target if n == numbers[-1] else None, note=note)
        )
    return rows


def loss_cwd():
    return _pair("loss cwd", "feature", "cwd", target=">= 2")


def loss_pkd():
    return _pair("loss pkd", "feature", "pkd", target=">= 2")


def loss_mgd():
    # Two convolutions of 256 channels: a quarter of the map, or the row would take minutes. They are the floor.
    rows = _pair("loss mgd, a level further", "feature", "mgd", SMALLER, target=">= 2")
    seconds = interleaved({"floor": _generation(), "ours": feature("ours", "mgd", SMALLER)}, repeats=5)
    note = "ours by its two convolutions alone"
    ours, floor = seconds["ours"], seconds["floor"]
    return [*rows, Row("loss mgd's floor", ours, None, floor, ours / floor, note=note)]


def _generation():
    """MGD's generation alone, forward and backward."""
    student, _ = maps(SMALLER)
    layers = paddle.nn.Sequential(
        *(f for _ in range(2) for f in (paddle.nn.Conv2D(SMALLER[1], SMALLER[1], 3, padding=1), paddle.nn.ReLU()))
    )
    return step(student, lambda: layers(student).sum(), layers)


def loss_ld():
    return _pair("loss ld", "ld", target=">= 2")


GROUPS = {x.__name__: x for x in (loss_fgd, loss_fgd_boxes, loss_cwd, loss_pkd, loss_mgd, loss_ld)}
