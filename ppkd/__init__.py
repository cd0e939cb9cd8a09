"""ppkd: knowledge distillation for object detectors on PaddlePaddle."""

from ppkd.compat.zlib_order import load_zlib_before_paddle

load_zlib_before_paddle()

__version__ = "0.1.0"
