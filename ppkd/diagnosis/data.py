"""``ppkd doctor --data``: what is wrong with images and annotations, with counts and examples."""

import concurrent.futures
import json
import os
import textwrap
import time

from ppkd import __version__
from ppkd.bridge.annotations import Found
from ppkd.bridge.bad_images import KEY, BadImages
from ppkd.bridge.between import compare_categories, same_files
from ppkd.bridge.datasets import check_files, judge
from ppkd.bridge.images import ENDINGS, BadImage, decode, header, read
from ppkd.bridge.kinds import ANNOTATIONS, ERROR, LEVELS, NOTE, WARNING, kinds_of
from ppkd.bridge.missing import cure_of
from ppkd.bridge.voc import is_voc
from ppkd.bridge.workspace import create, scope
from ppkd.errors import UserError
from ppkd.files.paths import Folder
from ppkd.terminal.log import duration, logger
from ppkd.terminal.table import text_table
from ppkd.terminal.text import printable

SECTIONS = ("TrainDataset", "EvalDataset")
_EXAMPLES = 5
_HUGE = 50e6
# Of 255: what cameras of 12 bits and less leave in the upper 8 of 16.
_DARK = 32
_FORMATS = {ending[1:]: ending[1:].upper() for ending in ENDINGS} | {"jpg": "JPEG", "tif": "TIFF"}

# Kind -> (how grave, what training makes of it).
KINDS = {
    "missing-image": (WARNING, "skipped in training, and counted against max_bad_images"),
    "unreadable-image": (WARNING, "skipped in training, and counted against max_bad_images"),
    "outside-folder": (ERROR, "the name leads out of the data set's folder (allow_outside)"),
    "nothing-to-use": (ERROR, "no image that can be read has a box"),
    **ANNOTATIONS,
    "image-size": (WARNING, "the boxes do not fit the image: training takes the file's size, not the annotated one"),
    "huge-image": (WARNING, "slow to load; store it smaller"),
    "dark-image": (WARNING, "of 16 bits the upper 8 are taken, and here they are nearly all 0: store it as 8 bits"),
    "cmyk-image": (NOTE, "converted to RGB; colours may be off"),
    "16-bit-image": (NOTE, "reduced to 8 bits"),
    "other-format": (NOTE, "read all the same; its name has the ending of another format"),
}


class Scan(Found):
    """What was found in one data set.

    Attributes:
        section, path: the data set's section of the config, and its annotation file.
        images, boxes: entries of the file.
        files: paths of the images that are there.
    """

    def __init__(self, section, path):
        super().__init__(KINDS | kinds_of(section != SECTIONS[0] and path.endswith(".json")))
        self.section, self.path = section, path
        self.images = self.boxes = 0
        self.files = []

    def bad_images(self):
        """Images that training would skip."""
        return self.counts["missing-image"] + self.counts["unreadable-image"]


def check_named(config):
    """Refuse the data sets and readers of a config that no run would start with; nothing is read.

    Args:
        config: the run's config.

    Raises:
        UserError: they name a class that a config may not name, or give one what it does not take.
    """
    with scope(config):
        for name in SECTIONS:
            if config.get(name):
                create(name)()
        for name in ("TrainReader", "EvalReader"):
            if config.get(name):
                create(name)


def scan_data(config):
    """Look at all images and annotations of a run's data sets; writes nothing.

    Args:
        config: the run's config.

    Returns:
        List of `Scan`, one a section.

    Raises:
        UserError: no data set in COCO's format, folder or annotation file missing or no JSON.
    """
    scans = []
    for section in SECTIONS:
        if section == SECTIONS[0] or config.get(section):
            check_files(section, config)
            scans.append(_scan(section, config))
    if len(scans) > 1:
        if differing := compare_categories(config):
            scans[1].note(*differing)
        for path, other in same_files(scans[0].files, scans[1].files):
            scans[1].note("same-image", f"{path} is {other}")
    return scans


def _scan(section, config):
    given, allow_outside = config[section], config.get("allow_outside") is True
    folder = str(given.get("dataset_dir") or "")
    path = os.path.join(folder, str(given.get("anno_path") or ""))
    if not path.endswith(".json") and not is_voc(given):
        raise UserError(f"{section}: {path}: only annotations in COCO's format (.json) and Pascal VOC's are looked at")
    scan = Scan(section, path)
    tidied, with_boxes = judge(section, config, path, scan, bool(given.get("load_crowd")))
    images, scan.boxes = tidied.content["images"], scan.listed
    scan.images = len(images)
    if "annotations" not in tidied.content:
        scan.note("no-list", "`annotations` is missing")
    root = os.path.join(folder, str(given.get("image_dir") or ""))
    inside = [Folder(folder or "."), Folder(root)]

    def look_inside(entry):
        path = os.path.join(root, entry["file_name"])
        try:
            if not allow_outside and not any(x.holds(path) for x in inside):
                return [("outside-folder" if os.path.lexists(path) else "missing-image", path)]
        except ValueError:  # a name that no file can have
            return [("missing-image", path)]
        return list(look(path, entry))

    begin, mark, useful, missing = time.time(), time.time(), False, []
    with concurrent.futures.ThreadPoolExecutor(os.cpu_count() or 1) as pool:
        found = pool.map(look_inside, images)
        for number, (entry, notes) in enumerate(zip(images, found), 1):
            for kind, example in notes:
                scan.note(kind, example)
            missing += [path for kind, path in notes if kind == "missing-image"]
            wrong = set(dict(notes))
            there = not {"missing-image", "outside-folder"} & wrong
            if there:
                scan.files.append(os.path.join(root, entry["file_name"]))
            if there and "unreadable-image" not in wrong:
                useful |= entry["id"] in with_boxes or given.get("allow_empty") is True
            if time.time() - mark > 5:
                mark = time.time()
                left = duration((mark - begin) / number * (len(images) - number))
                logger().info("%s: %d of %d images, %s left", section, number, len(images), left)
    split = "train" if section == "TrainDataset" else "val"
    if cure := cure_of(missing, folder, root, split):
        scan.examples["missing-image"][0] += cure
    if not useful:
        scan.note("nothing-to-use", f"{path}: {len(images)} images, {len(with_boxes)} of them with a box")
    return scan


def look(path, entry):
    """Yield what is wrong with an image: pairs of a kind and an example's text.

    Args:
        path: the file.
        entry: its entry among the annotation file's ``images``.
    """
    try:
        data = read(path)
        mode, form, pixels = header(data)
        image = decode(path)
        shape = image.shape
    except BadImage as bad:
        yield ("missing-image", path) if bad.reason == "missing" else ("unreadable-image", f"{path}: {bad.reason}")
        return
    size = (shape[1], shape[0])
    if pixels and pixels > _HUGE:
        yield "huge-image", f"{path}: {size[0]} x {size[1]}"
    if mode == "CMYK":
        yield "cmyk-image", path
    if mode.startswith("I;16") or (form == "PNG" and data[24] == 16):
        yield "16-bit-image", path
        if image.max() < _DARK:
            yield "dark-image", f"{path}: {image.max()} at most"
    ending = os.path.splitext(path)[1][1:].lower()
    if form and _FORMATS.get(ending, form) != form:
        yield "other-format", f"{path}: {form}"
    told = (entry["width"], entry["height"])
    if told != size:
        turned = " (turned by its EXIF orientation?)" if told == size[::-1] else ""
        yield "image-size", f"{path}: {size[0]} x {size[1]}, annotated {told[0]:g} x {told[1]:g}{turned}"


def verdict(scans, config):
    """What would stop a run, in words, or None."""
    reasons = []
    for scan in scans:
        met = [kind for kind, (level, _) in KINDS.items() if level == ERROR and scan.counts[kind]]
        errors = [f"{scan.counts[kind]} {kind}" for kind in met]
        if errors:
            reasons.append(f"{scan.path}: {', '.join(errors)}")
    bad, allowed = scans[0].bad_images(), BadImages(config)
    if bad and not allowed.allows(bad, scans[0].images):
        reasons.append(f"{bad} of {scans[0].images} training images are bad, more than {KEY}: {allowed.text} allows")
    return "; ".join(reasons) or None


def as_text(scans):
    """The report, no line break at the end."""
    lines = []
    for scan in scans:
        title = f"{scan.section}: {printable(scan.path)}, {scan.images} images, {scan.boxes} annotations"
        lines += ["", title, "-" * min(len(title), 110)]
        kinds = [kind for level in LEVELS for kind in KINDS if KINDS[kind][0] == level and scan.counts[kind]]
        if not kinds:
            lines.append("nothing found")
            continue
        rows = [(kind, str(scan.counts[kind]), KINDS[kind][0]) for kind in kinds]
        lines.append(text_table([("what", "how many", "level"), *rows]))
        for kind in kinds:
            lines += ["", f"{kind}: {KINDS[kind][1]}"]
            for example in scan.examples[kind]:
                lines += textwrap.wrap(example, 110, initial_indent="  ", subsequent_indent="    ")
            if scan.counts[kind] > _EXAMPLES:
                lines.append(f"  and {scan.counts[kind] - _EXAMPLES} more")
    return "\n".join(lines[1:])


def as_json(scans, config):
    """The same as JSON."""
    sets = {
        scan.section: {
            "file": scan.path,
            "images": scan.images,
            "annotations": scan.boxes,
            "found": {
                kind: {"count": count, "level": KINDS[kind][0], "examples": scan.examples[kind]}
                for kind, count in scan.counts.items()
            },
        }
        for scan in scans
    }
    return json.dumps({"ppkd": __version__, "verdict": verdict(scans, config), "data": sets}, indent=1)
