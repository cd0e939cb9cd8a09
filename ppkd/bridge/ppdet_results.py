"""What a detector has found, as ppdet makes entries of results and pictures of it."""


def categories_of(trainer):
    """Ids of the classes and their names, by the trainer's data set or, without one, ppdet's own.

    Args:
        trainer: ppdet's, in mode ``test``.

    Returns:
        ``({class: id}, {id: name})``.
    """
    from ppdet.data.source.category import get_categories

    return get_categories(trainer.cfg["metric"], trainer.dataset.get_anno())


def entries_of(found, categories):
    """What a detector has found, by kind: ``bbox``, ``segm``, ``mask``, ... to a list of COCO's entries, or None.

    Args:
        found: the detector's outputs as arrays, with ``im_id``.
        categories: ``{class: id}``.
    """
    from ppdet.metrics.coco_utils import get_infer_results

    return get_infer_results(found, categories)


def drawn(image, entries, number, names, threshold):
    """A picture with masks and keypoints drawn on it; boxes are none of it.

    Args:
        image: PIL's.
        entries: of `entries_of`.
        number: the image's id.
        names: ``{id: name}``.
        threshold: scores below it are not drawn.
    """
    from ppdet.utils.visualizer import visualize_results

    parts = (entries.get(kind) for kind in ("mask", "segm", "keypoint", "pose3d"))
    return visualize_results(image, None, *parts, number, names, threshold)
