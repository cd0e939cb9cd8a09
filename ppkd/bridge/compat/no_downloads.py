"""ppdet and Paddle fetch what they miss: a data set of 20 GB, weights by http, unasked and in the middle of a run."""

import os

from ppkd.errors import UserError, whole


def fetch_nothing():
    """Let ppdet and Paddle say what is missing instead of fetching it; weights are fetched by `files.download` alone.

    Needed for: all of paddledet and PaddleDetection, Paddle 2.6 and 3.3.
    """
    from paddle.utils import download as of_paddle
    from ppdet.data.source import dataset
    from ppdet.utils import download

    for module, name, instead in (
        (dataset, "get_dataset_path", _there),
        (download, "get_dataset_path", _there),
        (download, "_download", _refuse),
        (download, "_md5check_from_url", _refuse),
        (of_paddle, "_download", _refuse),
    ):
        getattr(module, name)  # or something else fetches
        setattr(module, name, instead)


def _there(path, annotation, image_dir):
    """The folder of a data set, as ppdet's ``get_dataset_path`` returns it if all is there."""
    wanted = {"data set folder": path}
    for what, name in (("annotation file", annotation), ("image folder", image_dir)):
        if name:
            wanted[what] = os.path.join(path, name)
    for what, found in wanted.items():
        if not os.path.exists(found):
            raise UserError(f"no {what} at {whole(found)} any more, or not yet")
    return path


def _refuse(*given, **_):
    url = next((str(value) for value in given if "://" in str(value)), "a file")
    raise UserError(
        f"{url} would be downloaded, which is off: download it yourself and give the file's path in the config"
    )
