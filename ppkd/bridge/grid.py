"""Where the places of a detector's maps lie on the image, as ppdet has it."""


def grid_of(head, maps):
    """The places of a PP-YOLOE head's maps, of all levels one after the other.

    Args:
        head: ppdet's.
        maps: a map (N, C, H, W) of each level.

    Returns:
        ``(points, counts, strides)``: centres (P, 2) in pixels, the number of places of each level, strides (P, 1).
    """
    from ppdet.modeling.assigners.utils import generate_anchors_for_grid_cell

    return generate_anchors_for_grid_cell(maps, head.fpn_strides, head.grid_cell_scale, head.grid_cell_offset)[1:]
