"""Pascal VOC as ppdet's ``VOCDataSet`` reads it, in COCO's form: one validator judges both."""

import os
import xml.etree.ElementTree as ET

from ppkd.errors import UserError
from ppkd.files.regular import open_file


def is_voc(section):
    """Whether a data set's section of a config is in Pascal VOC's format."""
    return isinstance(section, dict) and "VOCDataSet" in (getattr(section, "tag", None), section.get("name"))


def read_voc(section, note):
    """What a list of images and annotations comes to.

    Args:
        section: of the config: ``dataset_dir``, ``image_dir``, ``anno_path`` and ``label_list``.
        note: as `coco.Tidied` takes it.

    Returns:
        Plain values as an annotation file of COCO's has them, of images whose XML file can be read.

    Raises:
        UserError: the list, or that of classes, cannot be read.
    """
    folder = str(section.get("dataset_dir") or "")
    names = _names(section, folder)
    content = {"images": [], "annotations": [], "categories": [{"id": i + 1, "name": n} for n, i in names.items()]}
    path = os.path.join(folder, str(section.get("anno_path") or ""))
    for number, line in enumerate(_lines(path), 1):
        words = line.split()
        if len(words) < 2:
            note("broken-list", f"line {number} of {path}: {line!r:.60}")
            continue
        image, xml = words[0], os.path.join(folder, str(section.get("image_dir") or ""), words[1])
        if not os.path.isfile(xml):
            note("missing-xml", xml)
            continue
        try:
            with open_file(xml, "rb") as file:
                root = ET.parse(file).getroot()
        except (OSError, ET.ParseError, ValueError) as error:
            note("broken-xml", f"{xml}: {error}")
            continue
        width, height = (_number(root.findtext(f"size/{key}")) for key in ("width", "height"))
        entry = {"id": len(content["images"]) + 1, "file_name": image, "width": width, "height": height}
        if not (width or 0) > 0 or not (height or 0) > 0:
            note("broken-xml", f"{xml}: `size` has to be the image's width and height, above 0")
            continue
        content["images"].append(entry)
        for place, found in enumerate(root.findall("object"), 1):
            if (made := _annotation(found, f"object {place} of {xml}", entry, names, note)) is not None:
                content["annotations"].append(made | {"id": len(content["annotations"]) + 1})
    return content


def _names(section, folder):
    """Name -> number of its class, as ppdet counts."""
    if not section.get("label_list"):
        from ppdet.data.source.voc import pascalvoc_label

        return pascalvoc_label()
    return {line.strip(): number for number, line in enumerate(_lines(os.path.join(folder, section["label_list"])))}


def _lines(path):
    try:
        with open_file(path, encoding="utf-8") as file:
            return file.read().splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise UserError(f"{path}: cannot be read: {error}") from None


def _annotation(found, where, image, names, note):
    name = found.findtext("name")
    corners = [_number(found.findtext(f"bndbox/{key}")) for key in ("xmin", "ymin", "xmax", "ymax")]
    flag = found.findtext("difficult")
    if None in corners or name is None:
        note("broken-box", f"{where}: needs `name` and four numbers in `bndbox`")
    elif flag is not None and _number(flag) not in (0, 1):
        note("broken-xml", f"{where}: `difficult` is neither 0 nor 1, {flag!r:.40}")
    elif name not in names:
        note("unknown-category", f"{where}: {name!r} is not in label_list")
    else:
        x1, y1, x2, y2 = corners
        width, height = x2 - x1, y2 - y1
        # ppdet cuts boxes off one pixel before the edge.
        if width > 0 and height > 0 and (0 <= image["width"] - x1 <= 1 or 0 <= image["height"] - y1 <= 1):
            width = 0.0
        box = [x1, y1, width, height]
        area = abs(width * height)
        return {"image_id": image["id"], "category_id": names[name] + 1, "bbox": box, "area": area, "iscrowd": 0}
    return None


def _number(text):
    try:
        value = float(text)
    except (TypeError, ValueError):
        return None
    return value if abs(value) < 1e9 else None
