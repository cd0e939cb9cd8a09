"""Detectors that ppdet does not have, as ppdet modules: built, trained and exported as its own are."""


def register():
    """Make the models known to ppdet; to be called when ppdet has been imported. Called again it changes nothing."""
    from ppkd.models import of_mmdet, reppoints, rtmdet, solo

    for model in (of_mmdet, reppoints, rtmdet, solo):
        model.register()
