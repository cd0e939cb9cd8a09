"""What can be wrong with a data set: how grave it is, and what comes of it. An error is what no run starts with."""

ERROR, WARNING, NOTE = LEVELS = ("error", "warning", "note")

# Of annotation files.
ANNOTATIONS = {
    "no-list": (ERROR, "images, categories and annotations have to be lists"),
    "broken-image-entry": (ERROR, "an image needs id, file_name, and a width and height above 0"),
    "duplicate-image": (ERROR, "two images have one id, so that each would have the boxes of both"),
    "broken-category": (ERROR, "a category needs an id and a name"),
    "duplicate-category": (ERROR, "two categories have one id"),
    "too-many-categories": (ERROR, "each is a class of the detector"),
    "broken-list": (ERROR, "each line has to name an image and its annotation"),
    "broken-xml": (ERROR, "ppdet cannot read it"),
    "broken-annotation": (ERROR, "an annotation needs image_id and category_id, and 0 or 1 where it has iscrowd"),
    "unknown-category": (ERROR, "its category is not listed"),
    "missing-key": (ERROR, "ppdet and pycocotools need `area`: write width x height of the box, or the mask's area"),
    "broken-box": (ERROR, "bbox has to be four finite numbers of 32 bits: x, y, width, height"),
    "normalised-boxes": (ERROR, "bbox has to be in pixels, not in shares of the image"),
    "corner-boxes": (ERROR, "bbox has to be x, y, width, height; these look like x1, y1, x2, y2"),
    "nothing-kept": (ERROR, "not one box is left to learn from, or to compare with"),
    "no-mask": (ERROR, "evaluation of masks fails on a box without one: add `segmentation`, or remove the box"),
    "category-order": (ERROR, "training and validation set list their categories in another order: write them alike"),
    "category-names": (WARNING, "classes of training and validation set have other names: is it the same order?"),
    "category-missing": (WARNING, "the validation set does not list these classes: AP is of the others"),
    "same-image": (WARNING, "the image is in both sets: AP tells how well it is remembered"),
    "made-validation-labels": (WARNING, "AP then tells how like another detector it is, not how right"),
    "boxes-lost": (WARNING, "more than a tenth of the boxes is left out"),
    "mask-lost": (WARNING, "the box is left out, for this detector needs a polygon or run lengths in `segmentation`"),
    "missing-xml": (WARNING, "the image is left out: its annotation file is not there"),
    "empty-mask": (WARNING, "its mask has no pixel in the image: left out of training, and never found in evaluation"),
    "some-normalised": (WARNING, "many boxes are no larger than a pixel: are they in shares of the image?"),
    "boxes-beyond": (WARNING, "many boxes reach beyond their image: are x and y the centre, or another size's pixels?"),
    "unlike-areas": (WARNING, "`area` is not of these boxes, and APs, APm, APl go by it: write width x height"),
    "unknown-image": (WARNING, "the box is left out: its image is not listed"),
    "no-bbox": (WARNING, "the box is left out: there is no `bbox` (ppkd data import takes those of outlines)"),
    "negative-box": (WARNING, "the box is left out; x, y, width, height may have been mixed up with two corners"),
    "empty-box": (WARNING, "the box is left out: its `area` is 0 or below, or its width or height 0"),
    "box-outside": (WARNING, "the box lies wholly outside of its image: are these another size's pixels?"),
    "copied-box": (WARNING, "the same box of the same class in the same image is there already: both count"),
    "duplicate-file": (WARNING, "the image counts more than once"),
    "unused-category": (WARNING, "no box is of this category (an export's root?): it is a class all the same"),
    "same-name": (WARNING, "two categories have one name: they are two classes"),
    "ignored-box": (NOTE, "left out of training: it has `ignore`; evaluation counts it"),
    "crowd": (NOTE, "left out unless load_crowd is set"),
    "box-beyond-edge": (NOTE, "the box reaches beyond its image"),
    "made-labels": (NOTE, "as right as the teacher was: look at the picture that ppkd label drew"),
    "no-boxes": (NOTE, "the image is kept as background with allow_empty: true, else left out"),
    "annotation-ids": (NOTE, "numbered anew: pycocotools takes id 0 for 'nothing found', and AP would be too low"),
    "duplicate-annotation": (NOTE, "two boxes have one id: numbered anew"),
    "other-types": (NOTE, "harmless: taken as what it means"),
}

# The same of a validation set in COCO's format: pycocotools compares with every box but crowds.
EVALUATED = ANNOTATIONS | {
    "boxes-lost": (WARNING, "more than a tenth of the boxes is not as training would take it"),
    "negative-box": (WARNING, "evaluation counts it, as one that is never found; are these two corners?"),
    "empty-box": (WARNING, "`area` is 0 or below, or width or height 0; evaluation counts it unless `area` is below"),
    "box-outside": (WARNING, "it lies wholly outside of its image; evaluation counts it, as one that is never found"),
    "ignored-box": (NOTE, "evaluation counts it: pycocotools does not look at `ignore`"),
    "crowd": (NOTE, "what is found in it is neither right nor wrong"),
}


def kinds_of(evaluated):
    """The kinds as they are told of a set: `EVALUATED` or `ANNOTATIONS`."""
    return EVALUATED if evaluated else ANNOTATIONS
