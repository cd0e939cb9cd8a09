"""Vision transformers as teachers: their tokens as maps, and no head."""

from ppkd.detectors.base import Detector
from ppkd.detectors.taps import Tap


class ViT(Detector):
    """Has ``tokens`` (patch tokens behind the last block), ``tokens.K`` (behind block K, from 0) and ``cls``.

    All are behind the last layer norm. A map of tokens has a cell a patch; the class token is a map of one cell.
    """

    @classmethod
    def fits(cls, model):
        return type(model).__name__ == "ViTTeacher"

    def aliases(self):
        depth = self.model.variant.depth
        taps = {"tokens": Tap(f"map{depth - 1}"), "cls": Tap("summary", grid=True)}
        taps |= {f"tokens.{k}": Tap(f"map{k}") for k in range(depth)}
        return {name: lambda i, tap=tap: tap if i == 0 else None for name, tap in taps.items()}

    def run(self, batch, parts):
        self.model(batch, parts)
