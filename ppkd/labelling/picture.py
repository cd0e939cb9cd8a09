"""Examples of what a teacher has labelled, the most doubtful first, to look at before anything is trained on them."""

import os
import warnings

from ppkd.files.write import replacing
from ppkd.importing.summary import draw_example
from ppkd.labelling.place import MADE_BY

_DOUBTFUL, _OTHERS, _COLUMNS = 8, 8, 4
# Detections below their threshold by more than this are not drawn.
_NEAR = 0.15


def doubt(results, thresholds):
    """How doubtful an image's labels are: 1 less the distance between a threshold and the score nearest to its own.

    Args:
        results: COCO's, of an image.
        thresholds: id of a category -> least score, or None.

    Returns:
        0 to 1; 0 where nothing was found.
    """
    limits = [(result["score"], thresholds.get(result["category_id"])) for result in results]
    return max((1 - abs(score - limit) for score, limit in limits if limit is not None), default=0.0)


def pick(images, thresholds):
    """The images to show, with their doubt: the most doubtful ones, then others evenly down to the surest."""
    ordered = sorted(((doubt(image["results"], thresholds), image) for image in images if image["results"]),
                     key=lambda pair: (-pair[0], pair[1]["name"]))  # fmt: skip
    first, rest = ordered[:_DOUBTFUL], ordered[_DOUBTFUL:]
    count = min(_OTHERS, len(rest))
    return first + [rest[(k + 1) * len(rest) // count - 1] for k in range(count)]


def draw(images, folder, names, thresholds, path):
    """Write the picture: boxes that are labels have a line, those that miss their threshold by little a dashed one.

    Args:
        images: of `work.detect_all`.
        folder: which their names are relative to.
        names: id of a category -> name.
        thresholds: id of a category -> least score, or None.
        path: of the picture.
    """
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    shown = pick(images, thresholds)
    rows = -(-len(shown) // _COLUMNS)
    figure = Figure(figsize=(16, 4.2 * rows), dpi=80, layout="constrained")
    FigureCanvasAgg(figure)
    colours = {name: f"C{number % 10}" for number, name in enumerate(names.values())}
    for place, (doubtful, image) in enumerate(shown):
        entry = {"path": os.path.join(folder, image["name"]), "width": image["width"], "file_name": image["name"],
                 "title": f"doubt {doubtful:.2f}  {image['name']}",
                 "objects": list(_objects(image["results"], names, thresholds))}  # fmt: skip
        draw_example(figure.add_subplot(rows, _COLUMNS, place + 1), entry, colours)
    with warnings.catch_warnings(), replacing(path) as temporary:
        warnings.filterwarnings("ignore", message="Glyph")  # names in scripts that the font does not have
        figure.savefig(temporary, format="png", metadata=MADE_BY)


def _objects(results, names, thresholds):
    for result in results:
        name, limit = names[result["category_id"]], thresholds.get(result["category_id"])
        if limit is not None and result["score"] >= limit - _NEAR:
            yield {"label": name, "bbox": result["bbox"], "text": f"{name} {result['score']:.2f}",
                   "line": "-" if result["score"] >= limit else ":"}  # fmt: skip
