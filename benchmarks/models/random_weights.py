"""Random weights under which a detector computes with numbers of ordinary size.

A ResNet with frozen batch norm and random weights explodes: its running statistics are 0 and 1 whatever passes through,
and every block adds to the last. Here they are those of a few batches, as after training.
"""

import math

import paddle
from paddle.nn.layer.norm import _BatchNormBase


def calibrate(model, batches, with_head=True):
    """Set every batch norm's running statistics to the average over `batches`, frozen ones included.

    Args:
        model: ppdet model with random weights.
        batches: training batches of the form that its own loss takes.
        with_head: whether to; without it backbone and neck alone are run, which need the images only.
    """
    norms = [layer for layer in model.sublayers() if isinstance(layer, _BatchNormBase)]
    before = [(norm._use_global_stats, norm._momentum) for norm in norms]
    model.train()
    for norm in norms:
        norm._use_global_stats = None
    with paddle.no_grad():
        for done, batch in enumerate(batches):
            for norm in norms:
                norm._momentum = done / (done + 1)
            model(dict(batch)) if with_head else model.neck(model.backbone(dict(batch)))
    for norm, (use_global_stats, momentum) in zip(norms, before):
        norm._use_global_stats, norm._momentum = use_global_stats, momentum


def wake(model):
    """Draw the convolutions that begin at 0, as PP-YOLOE's last ones do: two such heads would agree in everything."""
    for parameter in model.parameters():
        if not parameter.stop_gradient and len(parameter.shape) == 4 and not parameter.any():
            fan_in = math.prod(parameter.shape[1:])
            parameter.set_value(paddle.randn(parameter.shape) / math.sqrt(fan_in))


def make_weights(config, batches, path, seed, with_head=True):
    """Write calibrated random weights for the detector that `config` describes.

    Args:
        config: a whole ppdet config.
        batches, with_head: as for `calibrate`.
        path: file to write.
        seed: seed of the weights.
    """
    from ppkd.bridge.workspace import build_detector
    from ppkd.training.seeds import seed_everything

    seed_everything(seed)
    model = build_detector(config)
    wake(model)
    calibrate(model, batches, with_head)
    paddle.save(model.state_dict(), path)
