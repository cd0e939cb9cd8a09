"""Which image an annotation means: names are those of other machines, and several folders may have one of them."""

import functools
import os
import re
import unicodedata
import urllib.parse
from collections import defaultdict

from ppkd.bridge.images import ENDINGS
from ppkd.errors import UserError

SPLITS = {"train": "train", "training": "train", "val": "val", "valid": "val", "validation": "val", "test": "test"}


class Images:
    """The images below a folder. Annotations name them by paths of other machines: what counts is what is here.

    Args:
        folder: folders that are links are not looked into.

    Attributes:
        borrowed: ``(image, file that annotates it)`` where the image lies in the folder of another split.
    """

    def __init__(self, folder):
        self.folder, self.paths, self.borrowed = folder, [], set()
        self._annotators, self._subsets = {}, set()
        for root, folders, files in os.walk(folder):
            folders[:] = sorted(name for name in folders if not name.startswith((".", "__MACOSX")))
            for name in sorted(files):
                if name.lower().endswith(ENDINGS) and not name.startswith("."):
                    self.paths.append(os.path.join(root, name))

    # Names are looked up in these in turn; where the first has all, the others are never made.

    @functools.cached_property
    def _by_name(self):
        return self._by(lambda name: (name,))

    @functools.cached_property
    def _by_stem(self):
        return self._by(lambda name: (os.path.splitext(name)[0],))

    @functools.cached_property
    def _by_folded(self):
        return self._by(lambda name: {name.casefold(), os.path.splitext(name)[0].casefold()})

    def _by(self, keys):
        found = defaultdict(list)
        for path in self.paths:
            for key in keys(unicodedata.normalize("NFC", os.path.basename(path))):
                found[key].append(path)
        return found

    def annotated_by(self, paths, each=False, subsets=()):
        """Say which files annotate the images, so that none takes for a missing image one that is another's.

        Args:
            paths: the files.
            each: whether each is about the image of its own name, and not about many.
            subsets: names that images have their folders by, besides.
        """
        self._annotators = defaultdict(list)
        for path in paths:
            self._annotators[stem_of(path) if each else None].append(path)
        self._subsets = {name.lower() for name in subsets}

    def find(self, wanted, where, subset=None):
        """The image that `wanted` means in the file `where`; None if there is none.

        Args:
            wanted: a path of whatever machine, a URL, or a name without an ending.
            where: path of the file that says it.
            subset: name of the folder that it may lie in.

        Raises:
            UserError: several images could be meant.
        """
        for text in _spellings(str(wanted)):
            parts = [part for part in text.split("/") if part not in ("", ".", "..")]
            if not parts:
                continue
            plain = re.sub(r"^[0-9a-f]{8}-", "", parts[-1])  # Label Studio's prefix of what was uploaded
            given = [unicodedata.normalize("NFC", name) for name in (parts[-1], plain)]
            by = [(kind, name) for name in given for kind in ("_by_name", "_by_stem")]
            by += [("_by_folded", name.casefold()) for name in given]
            found = next((getattr(self, kind)[name] for kind, name in by if name in getattr(self, kind)), [])
            found = [path for path in found if self._may_be(path, text, where, subset)]
            named = [path for path in found if subset and subset.lower() in self._folders(path)]
            found = named or found
            fitting = [path for path in found if not self._of_another_split(path, parts, where)]
            nearest = self._nearest(fitting or found, parts, where)
            if nearest is not None:
                if not fitting:
                    self.borrowed.add((nearest, where))
                return nearest
        return None

    def _may_be(self, path, text, where, subset):
        """Whether an image is none that other files, or another subset, have for themselves."""
        others = self._subsets - {(subset or "").lower()}
        if subset and others & self._folders(path) and subset.lower() not in self._folders(path):
            return False
        if None in self._annotators and os.path.normpath(path) in {
            os.path.normpath(os.path.join(start, text)) for start in (os.path.dirname(where), self.folder)
        }:
            return True
        annotators, folder = self._annotators_of(path), os.path.dirname(path)
        while annotators:  # up to the first folder with files that annotate
            near = [name for name in annotators if name.startswith(os.path.join(folder, ""))]
            if near or folder == os.path.dirname(folder):
                return not near or where in near
            folder = os.path.dirname(folder)
        return True

    def _of_another_split(self, path, parts, where):
        """Whether its folder is that of a split which another file annotates."""
        split = split_of(os.path.join(os.path.dirname(path), "_"), self.folder)
        said = split_of(os.path.join(self.folder, *parts[:-1], "_"), self.folder) or split_of(where, self.folder)
        others = (name for name in self._annotators_of(path) if name != where)
        return None not in (split, said) and split != said and split in {split_of(n, self.folder) for n in others}

    def _annotators_of(self, path):
        return self._annotators.get(stem_of(path)) or self._annotators.get(None, ())

    def _folders(self, path):
        return set(os.path.relpath(os.path.dirname(path), self.folder).lower().split(os.sep))

    def _nearest(self, found, parts, where):
        if len(found) < 2:
            return found[0] if found else None
        split = split_of(where, self.folder)

        def agreement(path):
            ends = zip(reversed(os.path.splitext(path)[0].split(os.sep)), reversed(_stem(parts)))
            same = [a == b for a, b in ends]
            shared = os.path.commonpath([os.path.abspath(path), os.path.abspath(where)])
            return (same + [False]).index(False), split_of(path, self.folder) == split, len(shared)

        best = max(map(agreement, found))
        nearest = [path for path in found if agreement(path) == best]
        if len(nearest) > 1:
            raise UserError(f"{where}: {'/'.join(parts)} could be {nearest[0]} or {nearest[1]}; give them other names")
        return nearest[0]


def _spellings(wanted):
    """What a name can mean, in the order in which it is looked for: as it is written, then as an address."""
    text = wanted.replace("\\", "/")
    is_address = "://" in text or "?d=" in text
    short = text.split("?d=")[-1].split("?")[0]
    decoded = urllib.parse.unquote(short).replace("\\", "/")
    whole = urllib.parse.unquote(text).replace("\\", "/").split("?d=")[-1].split("?")[0]
    return dict.fromkeys([*([] if is_address else [text]), short, decoded, whole])


def _stem(parts):
    return [*parts[:-1], os.path.splitext(parts[-1])[0]]


def stem_of(path):
    """A file's name without its ending."""
    return os.path.splitext(os.path.basename(path))[0]


def split_of(path, folder):
    """The split that a folder's name on the way to a file says, or the file's own; None if none does."""
    parts = re.split(r"[/\\]", os.path.splitext(os.path.relpath(path, folder))[0].lower())
    words = [re.sub(r"20\d\d$", "", word) for word in (*parts[:-1][::-1], *re.split(r"[_\-.]", parts[-1]))]
    return next((SPLITS[word] for word in words if word in SPLITS), None)
