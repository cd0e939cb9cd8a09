"""The one place that reads and writes files of tensors: Paddle's pickles, restricted, and safetensors."""

import os

import numpy as np

from ppkd.errors import UserError
from ppkd.files import unpickle
from ppkd.files.in_place import in_place_of
from ppkd.files.regular import open_file

SAFETENSORS = ".safetensors"
# What may be left out at the end of a path to weights.
SUFFIXES = (".pdparams", SAFETENSORS)

_TYPES = {
    "BOOL": "?", "U8": "u1", "I8": "i1", "U16": "<u2", "I16": "<i2", "U32": "<u4", "I32": "<i4", "U64": "<u8",
    "I64": "<i8", "F16": "<f2", "F32": "<f4", "F64": "<f8", "BF16": "<u2",
}  # fmt: skip


def read_tensors(path, keep_tensors=False):
    """Read a file that ``paddle.save`` wrote, or whose name ends in ``.safetensors``. Nothing in it is run.

    Args:
        path: the file.
        keep_tensors: give Paddle's named tensors back as such; otherwise as arrays.

    Returns:
        What was saved; of safetensors a dict from name to array, bfloat16 as float32.

    Raises:
        UserError: it cannot be read, is damaged or of another kind, or asks for what tensors do not need.
    """
    if os.fspath(path).endswith(f"{SAFETENSORS}.index.json"):
        raise UserError(f"{path}: only says in which files the weights lie: put all into one {SAFETENSORS} file")
    try:
        if os.fspath(path).endswith(SAFETENSORS):
            return _read_safetensors(path)
        return unpickle.load(path, _tensor if keep_tensors else None)
    except OSError as error:
        raise UserError(f"{path}: cannot be read: {error}") from error


def read_weights(path):
    """Read a ``.pdparams`` or ``.safetensors`` file into a dict of name -> array. Nothing in it is run.

    Raises:
        UserError: the file is not readable as weights, or asks for what tensors do not need.
    """
    state = read_tensors(path)
    if not isinstance(state, dict) or not any(hasattr(v, "shape") for v in state.values()):
        raise UserError(f"{path}: not a Paddle weight file: there are no named tensors in it")
    return state


def write_tensors(path, content, suffix=""):
    """Write what `read_tensors` reads: with ``paddle.save``, or as safetensors if `suffix` says so.

    Args:
        path: the file, of whatever name.
        content: tensors or arrays by name, or for ``paddle.save`` anything that it takes.
        suffix: ``.safetensors`` or any other.

    Raises:
        OSError: it cannot be written.
    """
    if suffix != SAFETENSORS:
        import paddle

        paddle.save(content, path)
        return
    from safetensors.numpy import save

    arrays = {str(name): np.asarray(value, order="C") for name, value in content.items()}
    with open(path, "wb") as file:
        # Its own way to a file raises no OSError for a full disk.
        file.write(save(arrays, {"format": "np"}))


def _tensor(name, array):
    import paddle

    tensor = paddle.to_tensor(array)
    if name is not None:
        tensor.name = name
    return tensor


def _read_safetensors(path):
    from safetensors import SafetensorError, deserialize

    with open_file(path, "rb") as file:
        content = file.read()
    try:
        found = deserialize(content)
    except (SafetensorError, UnicodeDecodeError, ValueError) as error:
        told = in_place_of("weights", content) or f", or a damaged one ({' '.join(str(error).split())})"
        raise UserError(f"{path}: not a safetensors file{told}") from None
    return {name: _array(path, name, entry) for name, entry in found}


def _array(path, name, entry):
    if entry["dtype"] not in _TYPES:
        raise UserError(f"{path}: {name} is of type {entry['dtype']}; known: {', '.join(_TYPES)}")
    try:
        array = np.frombuffer(entry["data"], _TYPES[entry["dtype"]]).reshape(entry["shape"])
    except ValueError:  # sides beyond all bounds, beside one of 0
        raise UserError(f"{path}: {name} is stated as {entry['shape']}, which is no tensor's shape") from None
    if entry["dtype"] == "BF16":  # the upper half of a float32
        array = (array.astype("<u4") << 16).view("<f4")
    return array
