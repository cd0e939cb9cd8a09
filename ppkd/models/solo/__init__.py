"""SOLO (Wang et al., ECCV 2020, arXiv 1912.04488), plain and decoupled, with the numbers of MMDetection's version.

Importing it, after ppdet, registers the modules with ppdet, under the names that configs use.
"""

from ppkd.models.solo import targets
from ppkd.models.solo.architecture import SOLO
from ppkd.models.solo.head import DecoupledSOLOHead, SOLOHead
from ppkd.models.solo.post_processing import SOLOMatrixNMS

__all__ = ["SOLO", "DecoupledSOLOHead", "SOLOMatrixNMS", "SOLOHead", "register"]


def register():
    """Tell ppdet what importing the modules does not: the reader's targets, and that it can be exported."""
    from ppdet.engine.export_utils import TRT_MIN_SUBGRAPH

    # ppdet ends the process where an architecture is not in this table; the number is that of SOLOv2.
    TRT_MIN_SUBGRAPH.setdefault("SOLO", 60)
    targets.register()
