"""Which top-level key belongs to the run and which to the method, and the check that catches typing errors."""

import sys

from ppkd.errors import UserError, nearest

# Keys of a slim file that describe the method.
METHOD_KEYS = frozenset({"slim", "slim_method", "distill_loss", "distill_loss_name", "distill"})

# fmt: off
# Keys that describe the run: data, readers, schedule, optimizer, output, device.
RUN_KEYS = frozenset(
    [
        "epoch", "LearningRate", "OptimizerBuilder", "worker_num", "log_iter", "save_dir", "snapshot_epoch",
        "use_gpu", "use_npu", "use_xpu", "use_mlu", "TrainReader", "EvalReader", "TestReader", "TrainDataset",
        "EvalDataset", "TestDataset", "metric", "map_type", "use_ema", "ema_decay", "ema_decay_type",
        "ema_black_list", "ema_filter_no_grad", "cycle_epoch", "find_unused_parameters",
        "use_fused_allreduce_gradients", "print_flops", "print_params", "profiler_options", "custom_black_list",
        "custom_white_list", "init_loss_scaling", "amp", "amp_level", "to_static", "dataset_dir",
        "train_images", "train_annotations", "val_images", "val_annotations", "allow_empty", "allow_outside", "seed",
        "eval_height", "eval_width", "eval_size",
        # ppkd's own
        "epochs", "imgsz", "batch", "patience", "keep_resume", "keep",
        "snapshot_steps", "accumulate", "total_batch_size", "scale_lr", "stages", "amp_dtype",
        "unlabelled", "UnlabelledReader",
        "restart_epochs", "restart_what", "restart_warmup", "deterministic", "teacher_dtype",
        "max_bad_images", "on_nonfinite", "max_nonfinite"
    ]
)

# Further keys that ppdet reads from the top level of a student's config; -o may set them even if no file does.
STUDENT_KEYS = frozenset(
    [
        "architecture", "pretrain_weights", "weights", "num_classes", "norm_type", "norm_decay", "data_format",
        "class_names", "depth_mult", "width_mult", "act", "trt", "classwise", "output_eval", "save_prediction_only",
        "bias", "IouType", "save_proposals", "proposals_path", "use_vdl", "vdl_log_dir", "export", "for_distill",
        "use_shared_conv", "exclude_nms", "exclude_post_process", "freeze_norm", "assigned_scores", "hidden_dim",
        "use_focal_loss"
    ]
)
# fmt: on


def is_number(value):
    """Whether a value of a file is a number that arithmetic takes: no flag, neither infinite nor beyond all floats."""
    return isinstance(value, (int, float)) and not isinstance(value, bool) and abs(value) <= sys.float_info.max


def check_top_level(values, known, where):
    """Refuse top-level keys that nothing reads: they are typing errors, and silence would cost a training run.

    Args:
        values: mapping whose keys are checked.
        known: keys that stand in the config files; ppdet's own keys and registered classes are known anyway.
        where: file or ``-o``, for the message.

    Raises:
        UserError: an unknown key, with the nearest known ones.
    """
    names = set(known) | RUN_KEYS | STUDENT_KEYS
    unknown = [k for k in values if k not in names]
    if not unknown:
        return
    from ppkd.bridge.workspace import registered_names  # imports ppdet, which takes seconds: only when there is a doubt

    names |= registered_names()
    for key in unknown:
        if key not in names:
            raise UserError(f"{where}: unknown key {key!r}{nearest(key, names)}")
