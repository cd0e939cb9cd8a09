"""Labels that a teacher makes for photographs without any."""

from ppkd.labelling.label import Labels, Wishes, label

__all__ = ["Labels", "Wishes", "label"]
