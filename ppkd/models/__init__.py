"""Models that ppdet does not have, as ppdet modules.

Detectors are built, trained and exported as its own are; vision transformers only teach.
"""


def register():
    """Make the models known to ppdet; to be called when ppdet has been imported. Called again it changes nothing."""
    from ppkd.models import of_mmdet, onnx, reppoints, rtmdet, solo, vit

    for model in (of_mmdet, onnx, reppoints, rtmdet, solo, vit):
        model.register()
