"""A model of another framework as a teacher, given as ONNX and run by ONNX Runtime."""


def register():
    """Make the models known to ppdet; to be called when ppdet has been imported."""
    from ppkd.models.onnx import detector, teacher  # noqa: F401
