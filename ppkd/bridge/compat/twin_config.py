"""PaddleDetection's students of PP-YOLOE distillation have a mode that breaks them anywhere else."""


def without_twin(config):
    """The config with PP-YOLOE's distillation mode off, and the post-processing that its architecture's default breaks.

    ``for_distill`` makes ppdet's head keep predictions, with their graphs, and its first dynamic target assignment for
    good: training beside anything but ppdet's own DistillModel would go on with the targets of the first batch. And
    ``architecture: PPYOLOE`` without ``post_process: null`` takes YOLOv3's, with which no evaluation runs
    (``mask_anchors``).

    Needed for: paddledet 2.6.0. Weights have the same names either way.
    """
    if config.get("architecture") != "PPYOLOE":
        return config
    own = config.get("PPYOLOE") or {}
    return {**config, "for_distill": False, "PPYOLOE": {"post_process": None, **own, "for_distill": False}}
