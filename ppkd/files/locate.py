"""Finds the local file that a path or a URL means."""

import os

from ppkd.errors import UserError
from ppkd.files import download
from ppkd.files.regular import check_file
from ppkd.files.tensor_files import SUFFIXES
from ppkd.terminal.log import logger

# PaddleDetection's: what ``ppdet://`` stands for, and where it keeps what it has downloaded.
UPSTREAM = "https://paddledet.bj.bcebos.com/"
CACHE = os.path.expanduser("~/.cache/paddle/weights")


def find_weights(weights, what):
    """The local file for a path or a URL, downloading the latter to ppdet's cache.

    Either may end in ``#sha256=`` and a checksum, which the file then has to have.

    Args:
        weights: as in ``pretrain_weights`` or ``weights``; a path may lack ``.pdparams`` or ``.safetensors``.
        what: for messages, for example ``teacher weights``.

    Raises:
        UserError: there is no such file, it is another one, or the download failed.
    """
    weights, checksum = download.split_checksum(weights)
    if "://" in weights:
        return _downloaded(weights, checksum, what)
    for path in (weights, *(weights + suffix for suffix in SUFFIXES)):
        if os.path.isfile(path):
            download.check(path, checksum, what)
            return path
    if os.path.exists(weights):
        _refuse(weights, what)
    suffixed = weights.endswith(SUFFIXES)
    raise UserError(
        f"{what}: no file {weights}{'' if suffixed else ''.join(f' or {weights}{suffix}' for suffix in SUFFIXES)} "
        f"(looked in {os.path.dirname(os.path.abspath(weights))}). Give a path or a URL"
    )


def _refuse(path, what):
    """Say what a path leads to that is no file."""
    try:
        check_file(path)
    except OSError as error:
        raise UserError(f"{what}: {path} {error}") from None


def local_file(weights):
    """The local file that a path or a URL means, or None where there is none (yet); nothing is fetched or checked."""
    if not weights or not isinstance(weights, str):
        return None
    address, _ = download.split_checksum(weights)
    if "://" in address:
        found = [download.place_of(_url(address), CACHE, shared=[UPSTREAM])]
    else:
        found = [address + suffix for suffix in ("", *SUFFIXES)]
    return next((path for path in found if os.path.isfile(path)), None)


def _url(address):
    return address.replace("ppdet://", UPSTREAM, 1) if address.startswith("ppdet://") else address


def _downloaded(address, checksum, what):
    url = _url(address)
    path = download.place_of(url, CACHE, shared=[UPSTREAM])
    checksum = checksum or download.named_checksum(url)
    try:
        download.fetch(url, path, checksum)
    except download.Unreachable as error:
        raise UserError(
            f"{what}: {address} could not be downloaded ({error}). Is there a network? Otherwise "
            "download it elsewhere and give the file's path instead"
        ) from error
    found = download.sha256(path)
    how = "as wanted" if checksum else f"to have it checked: {address}#sha256={found}"
    logger().info("%s: %s, %.1f MB, SHA-256 %s (%s)", what, path, os.path.getsize(path) / 1e6, found, how)
    return path
