"""What the examinations of a course warn of: it stands in their logs, which nobody opens while all goes on."""

from ppkd.files.json_io import read_json

_WARNING = "warning"


def warnings_of(path):
    """The warnings in a file that ``ppkd doctor`` wrote, of a pair or of data.

    Args:
        path: of its ``--json``.

    Returns:
        One line each; empty for a file without any.
    """
    found = read_json(path)
    if not isinstance(found, dict):
        return []
    lines = [
        f"{each['id']}: {each['text']}. {each['advice']}"
        for each in found.get("findings") or () if each["level"] == _WARNING
    ]  # fmt: skip
    for section, data in (found.get("data") or {}).items():
        for kind, each in data["found"].items():
            if each["level"] == _WARNING and each["count"]:
                example = f", for example {each['examples'][0]}" if each["examples"] else ""
                lines.append(f"{section}: {each['count']} of: {kind}{example}")
    return lines
