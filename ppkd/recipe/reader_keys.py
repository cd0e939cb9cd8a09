"""Keys of readers that nothing reads: ppdet's readers take any, so a typing error is silent there."""

from ppkd.errors import UserError, is_mistyped, nearest
from ppkd.recipe.settings import READERS

# What ppdet's readers, its exporter and, by `DetDataset.set_kwargs`, its data sets take.
_KNOWN = frozenset({
    "sample_transforms", "batch_transforms", "batch_size", "shuffle", "drop_last", "num_classes", "collate_batch",
    "use_shared_memory", "inputs_def", "fuse_normalize", "mixup_epoch", "cutmix_epoch", "mosaic_epoch", "pre_img_epoch",
    "transform_schedulers",
})  # fmt: skip
_OF_READER = {"UnlabelledReader": {"strong"}}  # of `training.unlabelled`


def unread_reader_keys(config, origin):
    """Refuse readers' keys that are typing errors of known ones, and tell of the others that ppdet doesn't know.

    Args:
        config: a run's, of which `shape.check_shape` approves.
        origin: top-level key -> file or ``-o`` that set it, for messages.

    Returns:
        Notes, one for each key that ppdet leaves unread. They are no errors: somebody's own data set may read them.

    Raises:
        UserError: a key that is nearly a known one.
    """
    readers = [(name, config.get(name), origin.get(name)) for name in READERS]
    readers += [
        (f"stages: TrainReader from epoch {stage.get('epoch')} on", stage.get("TrainReader"), origin.get("stages"))
        for stage in config.get("stages") or ()
    ]
    notes = []
    for name, reader, file in readers:
        where = f"{file}: {name}" if file else name
        known = _KNOWN | _OF_READER.get(name, set())
        for key in reader or ():
            if key in known:
                continue
            if is_mistyped(key, known):
                raise UserError(f"{where} has no key {key!r}{nearest(key, known)}")
            notes.append(f"{where} has {key!r}, which nothing in ppdet reads")
    return notes
