"""ppdet's average of a detector's weights."""

from ppkd.bridge.workspace import built_from_config


def average_of(model, config):
    """ppdet's ``ModelEMA`` of a model, which follows it and holds none of its tensors.

    Args:
        model: ppdet model, in the type that averages are kept in.
        config: the run's config: the ``ema_*`` keys and ``cycle_epoch``.
    """
    from ppdet.optimizer import ModelEMA
    from ppdet.optimizer.utils import get_bn_running_state_names

    given = {
        "decay": config.get("ema_decay", 0.9998),
        "ema_decay_type": config.get("ema_decay_type", "threshold"),
        "cycle_epoch": config.get("cycle_epoch", -1),
        "ema_black_list": config.get("ema_black_list"),
    }
    with built_from_config("the average of the weights (use_ema, ema_*)"):
        ema = ModelEMA(model, **given)
    if config.get("ema_filter_no_grad"):
        # ppdet's own way appends to a set, which raises as soon as there is a frozen parameter.
        running = get_bn_running_state_names(model)
        ema.ema_black_list |= {n for n, p in model.named_parameters() if p.stop_gradient} - set(running)
    # It holds the model's own tensors for what is on its black list, and would freeze them at a snapshot.
    for name in ema.ema_black_list:
        del ema.state_dict[name]
    return ema
