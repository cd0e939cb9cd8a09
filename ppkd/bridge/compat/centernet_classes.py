"""ppdet's transform for CenterNet makes targets of 80 classes, whatever the data set has."""

from ppkd.bridge.compat.looks import NOT_NEEDED


def count_classes_of_centernet():
    """Let a reader tell `Gt2CenterNetTarget` how many classes there are, as it tells all that have the attribute.

    ppdet's reader sets ``num_classes`` where there is one; this transform keeps it as ``nc``, so that with any other
    number than 80 the first step fails with shapes that do not fit. Without the patch CenterNet learns COCO alone.

    Needed for: PaddleDetection's wheel and clones, develop of 2025 included.
    """
    from ppdet.data.transform.batch_operators import Gt2CenterNetTarget

    if hasattr(Gt2CenterNetTarget(), "num_classes"):
        return NOT_NEEDED
    Gt2CenterNetTarget.num_classes = property(lambda self: self.nc, lambda self, count: setattr(self, "nc", count))
