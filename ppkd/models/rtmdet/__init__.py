"""RTMDet (Lyu et al., arXiv 2212.07784), with the numbers of MMYOLO's version.

Importing it, after ppdet, registers the modules with ppdet, under the names that configs use.
"""

from ppkd.models.rtmdet import schedule, transforms
from ppkd.models.rtmdet.architecture import RTMDet
from ppkd.models.rtmdet.assigner import DynamicSoftLabelAssigner
from ppkd.models.rtmdet.cspnext import CSPNeXt
from ppkd.models.rtmdet.head import RTMDetHead
from ppkd.models.rtmdet.pafpn import CSPNeXtPAFPN

__all__ = ["CSPNeXt", "CSPNeXtPAFPN", "DynamicSoftLabelAssigner", "RTMDet", "RTMDetHead", "register"]


def register():
    """Tell ppdet what importing the modules does not: transforms, the schedule, and that it can be exported."""
    from ppdet.engine.export_utils import TRT_MIN_SUBGRAPH

    # ppdet ends the process where an architecture is not in this table; the number is the YOLOs'.
    TRT_MIN_SUBGRAPH.setdefault("RTMDet", 3)
    transforms.register()
    schedule.register()
