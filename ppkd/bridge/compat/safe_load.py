"""ppdet unpickles whatever a file says, and downloads without a check."""

import contextlib
import pickle
import types

from ppkd.bridge.compat.looks import NOT_NEEDED
from ppkd.errors import UserError
from ppkd.files import tensor_files, unpickle
from ppkd.files.locate import find_weights


@contextlib.contextmanager
def restricted():
    """Inside the ``with`` block let ``paddle.load`` read files as `tensor_files` does.

    Backbones (Swin, ViT, ConvNeXt, those of ReID) load the file that their ``pretrained`` names while they are built.

    Needed for: paddledet 2.6.0 on Paddle 2.6 and 3.3.
    """
    import paddle
    from paddle.utils import download

    former = paddle.load, download.get_weights_path_from_url

    def load(path, return_numpy=False, **others):
        if others:
            raise UserError(f"{path}: paddle.load is restricted here and has no {', '.join(others)}")
        return tensor_files.read_tensors(find_weights(path, "pretrained weights"), keep_tensors=not return_numpy)

    paddle.load = load
    download.get_weights_path_from_url = lambda url, md5sum=None: find_weights(url, "pretrained weights")
    try:
        yield
    finally:
        paddle.load, download.get_weights_path_from_url = former


def read_cached_images_as_arrays():
    """Let the image cache of ``DecodeCache``, a folder of pickles, be read as arrays and nothing else.

    Needed for: PaddleDetection's wheel and clones up to October 2024.
    """
    from ppdet.data.transform import operators

    if not hasattr(operators, "pickle"):
        return NOT_NEEDED
    operators.pickle = types.SimpleNamespace(load=unpickle.loads, dump=pickle.dump)
