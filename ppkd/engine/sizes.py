"""Makes maps of two models equally large."""

import paddle.nn.functional as F


def match_size(student, teacher):
    """Resize the teacher's map to the student's height and width where they differ.

    Bilinear (half-pixel centres), but by the mean over a cell's area where the teacher's map is larger in both
    directions: bilinear would look at four of the cells and leave out the others.
    """
    size = student.shape[2:]
    if size == teacher.shape[2:]:
        return teacher
    if all(theirs >= ours for ours, theirs in zip(size, teacher.shape[2:])):
        return F.adaptive_avg_pool2d(teacher, size)
    return F.interpolate(teacher, size=size, mode="bilinear", align_corners=False)
