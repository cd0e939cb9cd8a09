"""Pillow 10 removed the method with which ppdet measures the labels that it draws."""


def give_textsize_back():
    """Let ``ImageDraw.textsize(text)`` return width and height in pixels again.

    Without it inference dies at the first detection that is drawn (``draw_bbox`` in ``ppdet/utils/visualizer.py``).

    Needed for: paddledet 2.6.0 with Pillow 10 or later.
    """
    from PIL.ImageDraw import ImageDraw

    if not hasattr(ImageDraw, "textsize"):
        ImageDraw.textsize = lambda self, text: self.textbbox((0, 0), text)[2:]
