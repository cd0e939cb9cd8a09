"""What a data set comes to: numbers, and a picture to look at before anything is trained on it."""

import random
import warnings
from collections import Counter

from ppkd.bridge.images import picture
from ppkd.importing.source import unpacked
from ppkd.terminal.table import text_table
from ppkd.terminal.text import printable

_EXAMPLES, _THUMBNAIL, _BARS, _BOXES = 12, 480, 30, 60


def as_text(entries, source, form, told):
    """Numbers of images and objects by split and class, and all that was not taken over.

    Args:
        entries: of `convert`, with their splits.
        source: `source.Source`.
        form: name of its format.
        told: how it was split.
    """
    parts = [name for name in ("train", "val", "test") if any(entry["split"] == name for entry in entries)]
    counts = {part: _labels(entry for entry in entries if entry["split"] == part) for part in parts}
    images = [str(sum(entry["split"] == part for entry in entries)) for part in parts]
    empty = [str(sum(entry["split"] == part and not entry["objects"] for entry in entries)) for part in parts]
    rows = [("", *parts), ("images", *images), ("of them without an object", *empty)]
    rows += [(name, *(str(counts[part][name]) for part in parts)) for name in source.names]
    lines = [f"{source.folder}: {form}, split {told}", "", text_table(rows)]
    notes = [f"{count} x {what}" for what, count in sorted(source.dropped.items()) if count]
    for part in parts[1:]:
        lacking = [name for name in source.names if counts["train"][name] and not counts[part][name]]
        notes += [f"no object in {part}, so no AP there: {', '.join(lacking)}"] if lacking else []
    never = [name for name in source.names if not any(counts[part][name] for part in parts)]
    notes += [f"classes without any object: {', '.join(never)}"] if never else []
    if notes:
        lines += ["", "to know:", *(f"  {note}" for note in notes)]
    return "\n".join(lines)


def draw(entries, names, path, seed=0):
    """Write a picture of class counts, box sizes and examples with their boxes."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(15, 16), dpi=80, layout="constrained")
    FigureCanvasAgg(figure)
    grid = figure.add_gridspec(4, 4, height_ratios=[1.1, 1, 1, 1])
    _counts(figure.add_subplot(grid[0, :2]), entries, names)
    _sizes(figure.add_subplot(grid[0, 2:]), entries)
    colours = {name: f"C{number % 10}" for number, name in enumerate(names)}
    with_objects = [entry for entry in entries if entry["objects"]]
    shown = random.Random(seed).sample(with_objects, min(_EXAMPLES, len(with_objects)))
    for place, entry in enumerate(shown):
        axes = figure.add_subplot(grid[1 + place // 4, place % 4])
        draw_example(axes, entry | {"objects": unpacked(entry["objects"])}, colours)
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="Glyph")  # names in scripts that the font does not have
        figure.savefig(path)


def _labels(entries):
    return Counter(found["label"] for entry in entries for found in unpacked(entry["objects"]))


def _counts(axes, entries, names):
    counts = _labels(entries)
    order = sorted(names, key=lambda name: -counts[name])
    shown = order[:_BARS][::-1]
    axes.barh(range(len(shown)), [counts[name] for name in shown], color="#0072B2")
    axes.set_yticks(range(len(shown)), [_plain(name, 24) for name in shown], fontsize=8)
    more = f" (the {_BARS} most frequent of {len(names)})" if len(names) > _BARS else ""
    axes.set_title(f"objects by class{more}")


def _sizes(axes, entries):
    sides = [
        100 * (found["bbox"][2] * found["bbox"][3] / (entry["width"] * entry["height"])) ** 0.5
        for entry in entries for found in unpacked(entry["objects"])
    ]  # fmt: skip
    axes.hist(sides, bins=40, range=(0, 100), color="#E69F00")
    axes.set_title("size of boxes: side of the square of equal area, % of the image's")


def draw_example(axes, entry, colours):
    """Draw an image and the boxes on it.

    Args:
        axes: matplotlib's.
        entry: ``path``, ``width``, ``title`` (or ``file_name`` for it) and ``objects``: dicts of ``label``, ``bbox``
            (x, y, width, height in pixels) and, if it is not the label, the ``text`` to show; ``line`` as matplotlib
            has it.
        colours: by label.
    """
    from matplotlib.patches import Rectangle

    shown = picture(entry["path"]).convert("RGB")
    shown.thumbnail((_THUMBNAIL, _THUMBNAIL))
    scale = shown.width / entry["width"]
    axes.imshow(shown)
    for found in entry["objects"][:_BOXES]:
        x, y, w, h = (n * scale for n in found["bbox"])
        colour = colours[found["label"]]
        axes.add_patch(Rectangle((x, y), w, h, fill=False, edgecolor=colour, linewidth=1.5,
                                 linestyle=found.get("line", "-")))  # fmt: skip
        axes.text(x, max(y - 2, 6), _plain(found.get("text", found["label"]), 22), color="white", fontsize=7,
                  bbox={"facecolor": colour, "edgecolor": "none", "pad": 1}, clip_on=True)  # fmt: skip
    axes.set_title(_plain(entry.get("title", entry["file_name"]), 60), fontsize=7)
    axes.axis("off")


def _plain(text, most):
    """Short, and no formula to matplotlib, which fails on what is half a character."""
    text = printable(text)
    return (text if len(text) <= most else text[: most - 1] + "…").replace("$", r"\$")
