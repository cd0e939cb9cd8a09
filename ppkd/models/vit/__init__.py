"""Vision transformers as teachers: DINOv2 and DINOv3, for inference only."""


def register():
    """Make the model known to ppdet; to be called when ppdet has been imported."""
    from ppkd.models.vit import teacher  # noqa: F401
