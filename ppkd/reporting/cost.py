"""What each detector costs to run."""

import paddle

from ppkd.bridge.sizes import follow_images
from ppkd.bridge.weights import load_exactly
from ppkd.bridge.workspace import build_detector
from ppkd.reporting.document import Section, Table
from ppkd.reporting.features import first_batch
from ppkd.study.cost import gflops, milliseconds, parameters


def section(material):
    """One table."""
    size = tuple(first_batch(material)["image"].shape[2:])
    models = {}
    for subject in material.subjects:
        models[subject.name] = build_detector(subject.config)
        load_exactly(models[subject.name], subject.weights, subject.name)
        follow_images(models[subject.name], size)  # a teacher's own file may say another size than the student's images
    times = milliseconds(models, size)
    rows = []
    for subject in material.subjects:
        model = models[subject.name]
        rows.append(
            [
                subject.name,
                f"{parameters(model) / 1e6:.2f}",
                f"{gflops(model, size):.2f}",
                f"{times[subject.name]:.1f}",
                _training(subject),
            ]
        )
    head = ["detector", "parameters (M)", "GFLOPs", "ms/image", "s/training step"]
    device = paddle.get_device()
    lead = (
        f"For one image of {size[1]} × {size[0]} pixels. GFLOPs count convolutions and linear layers, a multiply-add "
        "as two, by ppkd: paddle.flops does not run on ppdet's detectors, which take a dict. Latency is the median of "
        f"20 passes with post-processing on this machine ({device}), the detectors taking turns; that of students of "
        "one architecture is the same but for the number of detections and chance."
    )
    return Section("Cost", lead, [Table(head, rows, "Size and speed")])


def _training(subject):
    seconds = sorted(r["seconds_per_step"] for r in subject.run.of_kind("train") if "seconds_per_step" in r)
    return f"{seconds[len(seconds) // 2]:.2f}" if seconds and subject.role != "teacher" else "-"
