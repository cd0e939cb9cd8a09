"""A model of another framework as a teacher, given as ONNX and run by ONNX Runtime."""


def register():
    """Make the model known to ppdet; to be called when ppdet has been imported."""
    from ppkd.models.onnx import teacher  # noqa: F401
