"""What a detector's classes are called: names belong to its weights, and a data set is compared with them.

ppdet asks the data set that it is given, and without one calls the classes by COCO's names, whatever they are.
"""

import contextlib
import json
import os
import tempfile

from ppkd.bridge.annotation_file import category_names, read_categories
from ppkd.errors import UserError
from ppkd.files.class_names import KEY, given_names, names_beside
from ppkd.files.regular import open_file
from ppkd.files.yaml_io import Tagged, clone
from ppkd.terminal.log import logger

SECTIONS = ("TestDataset", "EvalDataset", "TrainDataset")
_COCO = ("instances_train2017.json", "instances_val2017.json")
# What ppdet calls the classes of these metrics by itself, as the published weights of the two have them.
_PUBLISHED = {"COCO": 80, "VOC": 20}
_HOW = f"-o {KEY}=[first,second,...] or {KEY}=FILE gives them"


def names_in(config, sections=("TrainDataset", "EvalDataset"), count=None):
    """Class names in ppdet's order by the first annotation file of a config that exists.

    Args:
        config: a ppdet config; short keys for data of one's own count as well.
        sections: data sets, the first goes first.
        count: number of classes; None for what the config says.

    Returns:
        ``(names, file)``, or ``(None, None)`` where no file says it.
    """
    for name in sections:
        for given in (config.get(name), _short(config, name)):
            path = _labels(given, name)
            if path and os.path.isfile(path):
                try:
                    return _read(path), path
                except UserError:
                    continue
            if path and os.path.basename(path) in _COCO and (count or config.get("num_classes", 80)) == 80:
                return _coco_names(), f"{os.path.basename(path)}, as it is published"
    return None, None


def names_of_training(config):
    """What a run calls the classes of its detector: `class_names`, or else the categories of its training set.

    Returns:
        A name for each of ``num_classes``, or None where nothing says them.

    Raises:
        UserError: ``class_names`` is no list of so many names.
    """
    count = config.get("num_classes", 80)
    if config.get(KEY) is not None:
        return _fitting(given_names(config[KEY]), KEY, count)
    names, _ = names_in(config, ("TrainDataset",))
    return None if names is None or len(names) > count else _filled(names, count)


def tell_unused(config):
    """Warn where a training set has fewer categories than the detector has classes: the others learn nothing."""
    count = config.get("num_classes", 80)
    names, file = names_in(config, ("TrainDataset",))
    if config.get(KEY) is None and names is not None and len(names) < count:
        logger().warning(
            "num_classes: %d, and of the training set (%s) %d: what is beyond learns background alone; -o "
            "num_classes=%d fits", count, file, len(names), len(names),
        )  # fmt: skip


def names_of(config, weights):
    """What the classes of a detector are called, for inference and export.

    ``class_names`` goes first, then what lies beside the weights, then a data set of the config. A data set of other
    names is told, and so is a detector whose names nothing knows.

    Args:
        config: of the detector.
        weights: path of its weights.

    Returns:
        One name a class; None where ppdet's own names are right: COCO's 80 or VOC's 20, as it publishes them.

    Raises:
        UserError: names of another number than ``num_classes``.
    """
    count = config.get("num_classes", 80)
    theirs, file = names_beside(weights)
    if config.get(KEY) is not None:
        names, file = _fitting(given_names(config[KEY]), KEY, count), KEY
        _tell(names, file, theirs, weights)
        return names
    data, where = _nearest(config, count)
    if theirs is not None:
        names = _fitting(theirs, file, count)
        _tell(names, file, data, where)
        return names
    if data is not None:
        if len(data) > count:
            raise UserError(f"{where} has {len(data)} categories, the detector of -c num_classes: {count}")
        if len(data) < count:
            logger().warning(
                "%s has names for %d of the detector's %d classes; the others are called class_%d and so on; %s",
                where, len(data), count, len(data), _HOW,
            )  # fmt: skip
        return _filled(data, count)
    metric = str(config.get("metric"))
    if count == _PUBLISHED.get(metric):
        logger().info("names of classes: no file says them; with %d classes they are taken for %s's", count, metric)
        return None
    logger().warning(
        "names of classes: neither a file beside the weights nor a data set says them, so they are called class_0 to "
        "class_%d; %s", count - 1, _HOW,
    )  # fmt: skip
    return _filled([], count)


def tell_difference(config, weights, sections=("EvalDataset",)):
    """Warn where a data set lists other categories, or in another order, than weights know.

    Args:
        config: has the data set.
        weights: path of the weights.
        sections: of which the first that says names is compared.

    Raises:
        UserError: ``class_names`` or the names beside the weights are not as many as ``num_classes``.
    """
    count = config.get("num_classes", 80)
    if config.get(KEY) is not None:
        names, file = _fitting(given_names(config[KEY]), KEY, count), KEY
    else:
        names, file = names_beside(weights)
        names = names and _fitting(names, file, count)
    data, where = names_in(config, sections)
    if names is not None:
        _tell(names, file, data, where)


def tell_taught(recipe, names):
    """Warn where weights that a run starts from, or learns from, are of as many classes that are called otherwise.

    Args:
        recipe: `recipe.Recipe`, whose weights are there.
        names: of the run's classes, or None.
    """
    given = [("pretrain_weights", recipe.student.get("pretrain_weights"))]
    given += [(f"{name}.pretrain_weights", spec.weights) for name, spec in recipe.teachers.items()]
    for key, weights in given:
        if not weights or "://" in str(weights):
            continue
        theirs, file = names_beside(str(weights).split("#")[0])
        other = difference(names, "the training set", theirs, file)
        if other and len(theirs) == len(names):
            logger().warning("%s: %s", key, other)


def difference(names, file, others, where):
    """How two lists of names differ, in words; None if they do not or one of them is not known."""
    if not names or not others:
        return None
    fewer, more = sorted((names, others), key=len)
    if _filled(fewer, len(more)) == more:  # what stands in for a name tells nothing
        return None
    order = " the same classes in another order" if sorted(names) == sorted(others) else " other classes"
    return f"{where} lists{order} than {file}: {_first_difference(others, names)}"


def _tell(names, file, others, where):
    if (other := difference(names, file, others, where)) is not None:
        logger().warning("names of classes: %s. What the detector finds is called as %s says", other, file)


@contextlib.contextmanager
def called(config, names):
    """A config by which ppdet calls classes by `names`; its own ids of categories stay those of the data set.

    Args:
        config: of the detector.
        names: one a class; None leaves the config as it is.
    """
    if names is None:
        yield config
        return
    given = config.get("TestDataset")
    section = clone(given) if isinstance(given, dict) else Tagged("ImageFolder")
    with tempfile.TemporaryDirectory() as folder:
        lines = str(config.get("metric")).lower() == "voc"
        section["anno_path"] = os.path.join(folder, "names.txt" if lines else "names.json")
        with open(section["anno_path"], "w", encoding="utf-8") as file:
            if lines:
                file.writelines(" ".join(name.split()) + "\n" for name in names)
            else:
                categories = [{"id": i, "name": name} for i, name in zip(_ids(config, names), names)]
                json.dump({"images": [], "annotations": [], "categories": categories}, file)
        yield config | {"TestDataset": section}


def _ids(config, names):
    """The ids of categories that the data set has for these names, or else the numbers of the classes from 0."""
    for section in SECTIONS:
        path = _labels(config.get(section), section)
        if path and path.endswith(".json") and os.path.isfile(path):
            with contextlib.suppress(UserError, KeyError, TypeError):
                entries = read_categories(path)
                if [str(entry["name"]) for entry in entries] == names:
                    return [entry["id"] for entry in entries]
    return range(len(names))


def _fitting(names, where, count):
    if len(names) != count:
        raise UserError(
            f"{where} has {len(names)} names, the detector of -c num_classes: {count}; a name a class is wanted"
        )
    return names


def _nearest(config, count):
    """The names of the first data set that has as many as there are classes, or else of the first that has any."""
    found = [names_in(config, (section,)) for section in SECTIONS]
    found = [(names, file) for names, file in found if names is not None] or [(None, None)]
    return next((pair for pair in found if pair[0] is not None and len(pair[0]) == count), found[0])


def _filled(names, count):
    return [*names, *(f"class_{i}" for i in range(len(names), count))]


def _short(config, name):
    split = "val" if name == "EvalDataset" else "train"
    return {"dataset_dir": config.get("dataset_dir"), "anno_path": config.get(f"{split}_annotations")}


def _labels(given, section):
    """The file that has a data set's class names, or None: of a list of images (VOC) it is another one."""
    if not isinstance(given, dict):
        return None
    path = given.get("label_list") or given.get("anno_path")
    if str(path).endswith(".txt") and not given.get("label_list") and section != "TestDataset":
        return None
    return os.path.join(os.path.expanduser(str(given.get("dataset_dir") or "")), str(path)) if path else None


def _read(path):
    if path.endswith(".txt"):
        with open_file(path, encoding="utf-8") as file:
            names = [line.strip() for line in file if line.strip()]
        return names[1:] if names[:1] == ["background"] else names
    if not path.endswith(".json"):
        raise UserError(f"{path}: neither .json nor .txt")
    return category_names(path)


def _coco_names():
    from ppdet.data.source.category import _coco17_category

    _, names = _coco17_category()
    return [name for _, name in sorted(clone(names).items()) if name != "background"]


def _first_difference(a, b):
    for i, (x, y) in enumerate(zip(a, b)):
        if x != y:
            return f"class {i} is {x!r} in the one and {y!r} in the other"
    return f"{len(a)} classes in the one, {len(b)} in the other"
