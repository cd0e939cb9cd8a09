"""Which level of the student is compared with which level of a teacher."""

import dataclasses
import math
from collections import Counter
from functools import partial

from ppkd.errors import UserError
from ppkd.terminal.log import logger

# Numbers of a box that a detector has found: class, score, four corners.
_OF_A_BOX = 6


def match_levels(spec, student, teacher, scale=1.0, boxes=False):
    """Pair the levels of a spec's sources of the student with the teacher's.

    Levels of equal stride (or grid) pair, several of one stride in their order; those of the student that have no
    partner are left out. Where no stride is common to both, each pairs with the teacher's nearest, and the teacher's
    map is resized (`sizes.match_size`).
    Maps of several sources of a side go together by stride.
    What is no map, such as the sets of predictions of a decoder's layers, pairs by depth: the last with the last.

    Args:
        spec: the `plan.TermSpec`.
        student, teacher: `detectors.Detector`.
        scale: how many times as large as the student's the teacher's images are: its strides, in pixels of the
            student's images, are smaller by as much.
        boxes: the teacher's side are boxes, which go with all levels of the student's.

    Returns:
        List of ``(student, teacher)``, each a tuple of one `detectors.Level` a source; sources that name single
        tensors on both sides give one pair.

    Raises:
        UserError: nothing to pair, or sources of a side that do not go together.
    """
    ours = [group[: spec.max_levels] for group in _found("student", student, spec.student)]
    theirs = [[_seen(level, scale) for level in group] for group in _found("teacher", teacher, spec.teacher)]
    if boxes:
        return _with_boxes(spec, list(zip(*ours)), theirs, scale)
    for side, names, groups in (("student", spec.student, ours), ("teacher", spec.teacher, theirs)):
        if len({len(levels) for levels in groups}) > 1:
            counts = ", ".join(f"{name} {len(levels)}" for name, levels in zip(sources(names), groups))
            raise UserError(f"{spec.name}: the {side}'s sources have different numbers of levels: {counts}")
        groups[1:] = [_in_the_order_of(groups[0], levels, spec, side) for levels in groups[1:]]
    if len(ours[0]) == 1 and len(theirs[0]) == 1:
        return [(tuple(levels[0] for levels in ours), tuple(levels[0] for levels in theirs))]
    if all(level.place is None for level in (*ours[0], *theirs[0])):
        return _by_depth(spec, list(zip(*ours)), list(zip(*theirs)))
    by_place = {}
    for levels in zip(*theirs):
        by_place.setdefault(levels[0].place, []).append(levels)
    if pairs := _of_equal_places(list(zip(*ours)), by_place):
        alone = [level.source for level in ours[0] if level.place not in by_place]
        if alone:
            logger().info("%s: no level of the teacher has the stride of %s: left out", spec.name, ", ".join(alone))
        return pairs
    maps = [levels for levels in zip(*theirs) if levels[0].stride]
    if not maps or not all(level.stride for level in ours[0]):
        raise UserError(
            f"{spec.name}: student {spec.student} has strides or grids {[x.place for x in ours[0]]}, "
            f"teacher {spec.teacher} has {list(by_place)}: none in common"
        )
    pairs = [(levels, min(maps, key=partial(_distance, levels[0].stride))) for levels in zip(*ours)]
    strides = ", ".join(f"{ours[0].stride:g} with {theirs[0].stride:g}" for ours, theirs in pairs)
    logger().info("%s: no stride in common, so the teacher's maps are resized: %s", spec.name, strides)
    return pairs


def _in_the_order_of(first, levels, spec, side):
    """The maps of another source of a side in the order of its first source's; a neck's may go downwards."""
    strides, wanted = [level.stride for level in levels], [level.stride for level in first]
    if not all((*strides, *wanted)) or strides == wanted:
        return levels
    if sorted(strides) != sorted(wanted):
        raise UserError(
            f"{spec.name}: {first[0].source} and {levels[0].source} of the {side} go together, but have strides "
            f"{wanted} and {strides}"
        )
    return sorted(levels, key=lambda level: wanted.index(level.stride))


def _of_equal_places(ours, by_place):
    """Each level with the teacher's of its place; of several there, the last of an SSD on small images, by depth."""
    counts, seen, pairs = Counter(levels[0].place for levels in ours), Counter(), []
    for levels in ours:
        place = levels[0].place
        seen[place] += 1
        if theirs := by_place.get(place):
            pairs.append((levels, theirs[_same_depth(seen[place], counts[place], len(theirs))]))
    return pairs


def _same_depth(number, of, theirs):
    """The position among `theirs` of the one at the same share of the depth as the student's `number` (from 1)."""
    return math.ceil(number * theirs / of) - 1


def _found(side, detector, names):
    """The levels of each source of a side, which an error tells: both may be of one class."""
    try:
        return [detector.levels(source) for source in sources(names)]
    except UserError as error:
        raise UserError(f"the {side}'s {error}") from error


def _with_boxes(spec, ours, theirs, scale):
    if [(level.place, level.channels) for level in theirs[0]] != [(None, _OF_A_BOX)] or len(theirs) > 1:
        raise UserError(
            f"{spec.name}: loss {spec.loss['name']} takes boxes: teacher: found, of a detector given as ONNX with "
            "detections"
        )
    if scale != 1:
        raise UserError(f"{spec.name}: boxes are in the student's pixels: give detections.size in place of input_scale")
    return [(levels, (theirs[0][0],)) for levels in ours]


def _by_depth(spec, ours, theirs):
    """Each of the student's layers with that of the teacher's at the same share of the whole depth."""
    pairs = [(levels, theirs[_same_depth(k, len(ours), len(theirs))]) for k, levels in enumerate(ours, 1)]
    if len(ours) != len(theirs):
        told = ", ".join(f"{ours[0].source} with {theirs[0].source}" for ours, theirs in pairs)
        logger().info("%s: other numbers of layers, so they pair by depth: %s", spec.name, told)
    return pairs


def sources(names):
    """A spec's source or sources as a tuple."""
    return (names,) if isinstance(names, str) else tuple(names)


def _seen(level, scale):
    if scale == 1 or level.stride is None:
        return level
    stride = level.stride / scale
    return dataclasses.replace(level, stride=int(stride) if stride == int(stride) else stride)


def _distance(stride, levels):
    """How far a level is from a stride, in octaves."""
    return abs(math.log2(levels[0].stride / stride))
