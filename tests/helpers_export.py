"""Detectors with something to detect, and their exported graphs run by Paddle Inference and onnxruntime."""

import pathlib

import numpy as np
import paddle
from paddle.nn.layer.norm import _BatchNormBase

from tests.conftest import training_batch

HEADS = ("head", "yolo_head", "fcos_head", "solov2_head", "mask_head", "rpn_head", "bbox_head")


def lively(model, loaded, noise=0.5):
    """Give a detector weights with which its scores differ from cell to cell; returns it in eval mode.

    As ppdet builds it, its batch norms let next to nothing through in eval mode, and all scores are about equal: any
    rounding then changes which of them are kept.
    """
    norms = [layer for layer in model.sublayers() if isinstance(layer, _BatchNormBase)]
    for norm in norms:
        norm._momentum = 0.5  # a variance over few cells may be next to nothing
    model.train()
    model(training_batch(loaded))
    for part in (getattr(model, name, None) for name in HEADS):
        for name, parameter in part.named_parameters() if part is not None else ():
            if not name.endswith(("_mean", "_variance")) and "proj_conv" not in name:
                inputs = max(int(np.prod(parameter.shape[1:])), 16)
                parameter.set_value(parameter + noise / inputs**0.5 * paddle.randn(parameter.shape))
    model.eval()
    return model


def evaluation_batch(loaded):
    """The first batch of a recipe's EvalReader."""
    from ppkd.bridge.datasets import open_dataset
    from ppkd.bridge.workspace import create, scope

    with scope(loaded.student):
        return next(iter(create("EvalReader")(open_dataset("EvalDataset", loaded.student), 0)))


def dynamic_outputs(model, batch):
    """What the detector itself gives, as arrays in the order in which a graph returns them."""
    with paddle.no_grad():
        outputs = model(dict(batch))
    return [outputs[name].numpy() for name in sorted(outputs)]


def open_predictor(folder, onednn=False):
    """A Paddle Inference predictor on the CPU, with its default optimisation."""
    from paddle.inference import Config, create_predictor

    graph = next(p for p in (pathlib.Path(folder) / n for n in ("model.json", "model.pdmodel")) if p.exists())
    config = Config(str(graph), str(graph.with_name("model.pdiparams")))
    config.disable_gpu()
    config.disable_glog_info()
    config.set_cpu_math_library_num_threads(1)
    if not onednn:
        config.disable_mkldnn()
    return create_predictor(config)


def infer(predictor, batch):
    """Outputs of a predictor for a batch, as arrays."""
    for name in predictor.get_input_names():
        predictor.get_input_handle(name).copy_from_cpu(batch[name].numpy())
    predictor.run()
    return [predictor.get_output_handle(name).copy_to_cpu() for name in predictor.get_output_names()]


def infer_onnx(path, batch):
    """Outputs of onnxruntime for a batch: name -> array, in the order of the file."""
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads, options.log_severity_level = 1, 3
    session = onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
    found = session.run(None, {i.name: batch[i.name].numpy() for i in session.get_inputs()})
    return dict(zip((output.name for output in session.get_outputs()), found))


def by_class_and_score(outputs):
    """The same outputs with detections by class, then by score, for which ONNX has an order of its own."""
    if len(outputs) == 4:  # SOLOv2: number, classes, scores, masks
        order = np.lexsort((-outputs[2], outputs[1]))
        return [outputs[0], *(output[order] for output in outputs[1:])]
    boxes = outputs[0]
    return [boxes[np.lexsort((-boxes[:, 1], boxes[:, 0]))], *outputs[1:]]


def assert_equal(outputs, expected):
    """Equal shapes, and values within 1e-4; of masks one pixel in ten thousand may fall on either side."""
    # TTFNet's graph gives the number of one image's boxes as 1x1.
    outputs = [o.reshape(e.shape) if o.size == e.size == 1 else o for o, e in zip(outputs, expected, strict=True)]
    assert [o.shape for o in outputs] == [e.shape for e in expected]
    for output, wanted in zip(outputs, expected):
        if wanted.ndim == 3 and wanted.dtype.kind in "iu":
            assert (output != wanted).mean() <= 1e-4
        else:
            np.testing.assert_allclose(output.astype("float64"), wanted.astype("float64"), rtol=1e-4, atol=1e-4)
