"""ppdet's necks of PicoDet add a level to a list that is a default value, and so shared by all of them."""

import inspect

from ppkd.bridge.compat.looks import NOT_NEEDED, says
from ppkd.bridge.compat.wrapping import wrap


def give_each_neck_its_own_scales():
    """Hand `LCPAN`, `ESPAN` and `CSPPAN` a copy of their ``spatial_scales``.

    With ``num_features: 4`` they append to the list. Without the patch the second such neck of a process, a student's
    beside a teacher's, has a level too many: LCPAN fails with a bare AssertionError when it is run.

    Needed for: PaddleDetection's wheel and clones up to October 2024.
    """
    from ppdet.modeling.necks.csp_pan import CSPPAN
    from ppdet.modeling.necks.es_pan import ESPAN
    from ppdet.modeling.necks.lc_pan import LCPAN

    adding = [
        each for each in (CSPPAN, ESPAN, LCPAN) if says(each.__init__, r"self\.spatial_scales = spatial_scales\s")
    ]
    if not adding:
        return NOT_NEEDED
    for kind in adding:
        wrap(kind, "__init__", _copying)


def _copying(init):
    signature = inspect.signature(init)

    def with_a_copy(*args, **kwargs):
        given = signature.bind(*args, **kwargs)
        given.apply_defaults()
        given.arguments["spatial_scales"] = list(given.arguments["spatial_scales"])
        init(*given.args, **given.kwargs)

    return with_a_copy
