"""What lies in a file's place, of what often does: a web page, or a pointer of Git LFS."""


def in_place_of(what, data):
    """What a file's first bytes say that it is instead, behind a message; empty where they do not.

    Args:
        what: the thing that was wanted, in a word.
        data: bytes, the first hundred or all.
    """
    if data.startswith(b"version https://git-lfs"):
        return f": it is a pointer of Git LFS; `git lfs pull` fetches the {what}"
    if data[:100].lstrip()[:1] == b"<":
        return ": it is a page or drawing in HTML, XML or SVG; was the download refused?"
    return ""


def opened_in_place_of(what, stream):
    """`in_place_of` for an open binary file, wherever it has been read to."""
    try:
        stream.seek(0)
        return in_place_of(what, stream.read(100))
    except (OSError, ValueError):
        return ""
