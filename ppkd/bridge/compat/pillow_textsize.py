"""Pillow 10 removed the method with which ppdet measures the labels that it draws."""

from ppkd.bridge.compat.looks import NOT_NEEDED, says


def give_textsize_back():
    """Let ``ImageDraw.textsize(text)`` return width and height in pixels again.

    Without it inference dies at the first detection that is drawn (``draw_bbox`` in ``ppdet/utils/visualizer.py``).

    Needed for: paddledet 2.6.0 with Pillow 10 or later; clones from 2.7 on measure otherwise.
    """
    from PIL.ImageDraw import ImageDraw
    from ppdet.utils import visualizer

    if hasattr(ImageDraw, "textsize") or not says(visualizer, r"\.textsize\("):
        return NOT_NEEDED
    ImageDraw.textsize = lambda self, text: self.textbbox((0, 0), text)[2:]
