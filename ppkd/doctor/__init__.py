"""``ppkd doctor``: examines a distillation before days of training, within minutes."""

from ppkd.doctor.examination import Examination, examine
from ppkd.doctor.show import as_json, as_text

__all__ = ["Examination", "as_json", "as_text", "examine"]
