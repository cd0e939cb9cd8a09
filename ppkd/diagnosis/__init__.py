"""``ppkd doctor``: examines a distillation before days of training, within minutes."""

from ppkd.diagnosis.examination import Examination, examine
from ppkd.diagnosis.show import as_json, as_text

__all__ = ["Examination", "as_json", "as_text", "examine"]
