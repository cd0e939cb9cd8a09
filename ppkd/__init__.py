"""ppkd: knowledge distillation for object detectors on PaddlePaddle.

Importing it cures ppdet's defects on today's Paddle (`compat`) in this process, whenever ppdet is imported.
"""

from ppkd.compat import cure_ppdet
from ppkd.compat.on_import import after_import
from ppkd.compat.zlib_order import load_zlib_before_paddle

load_zlib_before_paddle()
after_import("ppdet", cure_ppdet)

__version__ = "0.1.0"
