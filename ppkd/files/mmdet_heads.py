"""What the text of a config of MMDetection says of anchors, regions and the rest of its heads, in ppdet's keys.

A function gives nothing for what the text does not say; ppdet's config has MMDetection's usual numbers then.
"""

from ppkd.files.mmdet_text import numbers, within

_FINEST = 56  # a region up to so many pixels, times two, is of the first level


def anchors(told, place):
    """ppdet's ``AnchorGenerator``, sizes in pixels.

    Args:
        told: `Told`.
        place: of MMDetection's head, ``bbox_head`` or ``rpn_head``.
    """
    given = within(told.model, place, "anchor_generator")
    strides, ratios = numbers(given.get("strides")), numbers(given.get("ratios"))
    scales = numbers(given.get("scales"))
    base, count = given.get("octave_base_scale"), given.get("scales_per_octave")
    if scales is None and type(base) in (int, float) and type(count) is int and count > 0:
        scales = [base * 2 ** (k / count) for k in range(count)]
    if not (strides and ratios and scales):
        return {}
    bases = numbers(given.get("base_sizes")) or strides
    sizes = [[each * scale for scale in scales] for each in bases]
    return {"name": "AnchorGenerator", "anchor_sizes": sizes, "aspect_ratios": ratios, "strides": strides}


def regions(told):
    """ppdet's ``test_proposal``: of MMDetection's names of today, and of those before 2.4."""
    test = told.test("rpn")
    nms = within(test, "nms")
    said = {
        "min_size": test.get("min_bbox_size"),
        "nms_thresh": nms.get("iou_threshold", nms.get("iou_thr", test.get("nms_thr"))),
        "pre_nms_top_n": test.get("nms_pre"),
        "post_nms_top_n": test.get("max_per_img", test.get("max_num")),
    }
    return {key: value for key, value in said.items() if type(value) in (int, float)}


def pooling(told, place):
    """ppdet's ``roi_extractor``.

    Args:
        told: `Told`.
        place: ``bbox_roi_extractor`` or ``mask_roi_extractor``.
    """
    given = within(told.model, "roi_head", place)
    layer, found = within(given, "roi_layer"), {}
    if isinstance(layer.get("aligned"), bool):
        found["aligned"] = layer["aligned"]
    if type(layer.get("sampling_ratio", layer.get("sample_num"))) is int:
        found["sampling_ratio"] = layer.get("sampling_ratio", layer.get("sample_num"))
    if type(given.get("finest_scale")) is int and given["finest_scale"] != _FINEST:
        found["canonical_size"] = 4 * given["finest_scale"]
    return found


def unlike(told, kind):
    """What the text says that nothing here does, in words: lists are short, as little is as a rule.

    Args:
        told: `Told`.
        kind: the architecture here.
    """
    found, model, test = [], told.model, told.test("rcnn") if "RCNN" in kind else told.test()
    nms = str(within(test, "nms").get("type", "nms"))
    if nms != "nms":
        found.append(f"its detections are chosen by {nms}")
    if kind in ("RetinaNet", "FCOS", "GFL") and test.get("nms_pre", 1000) != 1000:
        found.append(f"its nms_pre is {test['nms_pre']}, not 1000")
    if test.get("mask_thr_binary", 0.5) != 0.5:
        found.append(f"its mask_thr_binary is {test['mask_thr_binary']}, not 0.5")
    if within(model, "neck").get("add_extra_convs") == "on_lateral":
        found.append("its extra levels grow out of a lateral map (on_lateral)")
    wanted = {"bbox_head": [1.0] * 4} if kind == "RetinaNet" else {"rpn_head": [1.0] * 4}
    heads = [(place, within(model, place), stds) for place, stds in wanted.items()]
    if kind in ("FasterRCNN", "MaskRCNN"):
        heads.append(("roi_head.bbox_head", within(model, "roi_head", "bbox_head"), [0.1, 0.1, 0.2, 0.2]))
    for place, head, usual in heads:
        stds = numbers(within(head, "bbox_coder").get("target_stds")) or usual
        if stds != usual:
            found.append(f"the target_stds of its {place} are {stds}, not {usual}")
    return found
