"""RepPoints (Yang et al., ICCV 2019, arXiv 1904.11490), with the numbers of MMDetection's version.

Importing it, after ppdet, registers the modules with ppdet, under the names that configs use.
"""

from ppkd.models.reppoints.architecture import RepPoints
from ppkd.models.reppoints.head import RepPointsHead

__all__ = ["RepPoints", "RepPointsHead", "register"]


def register():
    """Tell ppdet that it can be exported."""
    from ppdet.engine.export_utils import TRT_MIN_SUBGRAPH

    # ppdet ends the process where an architecture is not in this table; the number is that of its RetinaNet.
    TRT_MIN_SUBGRAPH.setdefault("RepPoints", 40)
