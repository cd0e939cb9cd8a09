"""Paddle 2.6: the zlib that it exports breaks every other user of zlib.

Needed for: paddlepaddle 2.6.x (3.x does not export zlib's symbols).
"""

import sys


def load_zlib_before_paddle():
    """Bind Python's zlib to the system's library before Paddle offers its own symbols.

    Paddle 2.6 exports zlib symbols; a zlib loaded after it calls into them, and the next import of an
    extension built by a current Cython (pycocotools, lap, ...) ends the process with a segmentation fault in
    ``inflateReset2``. Loading zlib first cures it. Once Paddle is loaded nothing can, so that case is refused
    with a message instead of a crash later.

    Raises:
        ImportError: Paddle 2.6 was imported before zlib.
    """
    order = list(sys.modules)
    # The compiled library, not `paddle` itself: Paddle puts that entry anew when its import ends.
    library = "paddle.base.libpaddle"
    paddle_first = library in order and ("zlib" not in order or order.index("zlib") > order.index(library))
    if paddle_first and getattr(sys.modules.get("paddle"), "__version__", "").startswith("2.6"):
        raise ImportError(
            "Paddle 2.6 was imported before ppkd and before zlib: the next compiled extension (pycocotools, lap) "
            "would crash the process. Put `import ppkd` (or `import zlib`) above `import paddle`."
        )
    import zlib  # noqa: F401
