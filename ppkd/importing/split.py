"""Which images are for training and which for validation: what belongs together stays together."""

import hashlib
import os
import random

from ppkd.errors import UserError
from ppkd.files.regular import open_file

_DEFAULT = 0.2


def splits(entries, share, seed, source):
    """Give each entry its split.

    Args:
        entries: of `convert`; their ``split`` is set.
        share: of the images for validation; None keeps what the data set says, and if it says nothing takes 20 %.
        seed: of the draw.
        source: counts what is in several splits.

    Returns:
        How it was done, in words.

    Raises:
        UserError: too few images to split.
    """
    groups = _groups(entries)
    said = {entry["split"] for entry in entries} - {None}
    if share is None and said:
        source.dropped["images that no split of the data set names: taken for train"] += sum(
            entry["split"] is None for entry in entries
        )
        for entry in entries:
            entry["split"] = entry["split"] or "train"
        if "train" not in {entry["split"] for entry in entries}:
            raise UserError(f"{source.folder}: has {', '.join(sorted(said))} and no train; --val 20% splits anew")
        leaking = sum(len({entry["split"] for entry in group}) > 1 for group in groups)
        source.dropped["images in several splits, as copies or pictures made of one: AP is too good"] += leaking
        return "as the data set says"
    share = _DEFAULT if share is None else share
    if len(groups) < 2:
        raise UserError(
            f"{source.folder}: {len(entries)} images, of which no part can be for validation{source.told()}"
        )
    groups.sort(key=lambda group: group[0]["path"])
    random.Random(seed).shuffle(groups)
    wanted, taken = max(1, round(share * len(entries))), 0
    for place, group in enumerate(groups):
        is_val = taken < wanted and place < len(groups) - 1
        taken += len(group) if is_val else 0
        for entry in group:
            entry["split"] = "val" if is_val else "train"
    return f"drawn with seed {seed}, {share:.0%} for validation; copies of an image stay together"


def _groups(entries):
    """Lists of entries that show the same: equal files, and Roboflow's pictures of one image (``NAME.rf.CODE.jpg``)."""
    first, found = {}, {}
    for entry in entries:
        with open_file(entry["path"], "rb") as file:
            content = hashlib.file_digest(file, "sha256").hexdigest()
        name = os.path.basename(entry["path"])
        keys = [content] + ([name.split(".rf.")[0]] if ".rf." in name else [])
        roots = {_root(first, key) for key in keys}
        root = min(roots)
        for other in roots:
            first[other] = root
        found[id(entry)] = root
    groups = {}
    for entry in entries:
        groups.setdefault(_root(first, found[id(entry)]), []).append(entry)
    return list(groups.values())


def _root(first, key):
    first.setdefault(key, key)
    while first[key] != key:
        key = first[key]
    return key
