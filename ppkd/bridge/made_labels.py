"""Annotation files whose boxes a detector has found: how they say so."""

# Key of COCO's `info` under which `ppkd label` says where its boxes are from.
KEY = "ppkd_label"


def made_labels(content):
    """What an annotation file says of labels that a teacher has made, in one sentence; None of a file of people.

    Args:
        content: of the file.
    """
    info = content.get("info")
    told = info.get(KEY) if isinstance(info, dict) else None
    if not isinstance(told, dict):
        return None
    entries = content.get("annotations")
    entries = entries if isinstance(entries, list) else []
    made = sum(isinstance(entry, dict) and "score" in entry for entry in entries)
    teacher = told.get("teacher") if isinstance(told.get("teacher"), dict) else {}
    sample = told.get("sample") if isinstance(told.get("sample"), dict) else {}
    text = f"{made} of {len(entries)} boxes were found by a teacher, not drawn by people"
    if teacher:
        text += f" ({teacher.get('config')}, weights with SHA-256 {str(teacher.get('sha256'))[:12]}...)"
    if isinstance(sample.get("AP"), (int, float)):
        text += f", whose AP on {sample.get('images')} labelled images was {100 * sample['AP']:.1f}"
    return text
