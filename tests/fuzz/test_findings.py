"""What the fuzz tests have found, each kept as a case of its own."""

import pytest

from ppkd.errors import UserError
from ppkd.methods import plan
from ppkd.recipe import load_recipe
from ppkd.targets import Target
from ppkd.yaml_io import dump
from tests.fuzz.test_grammars import detectors  # noqa: F401  # a fixture
from tests.fuzz.test_recipe import STUDENT, changed


@pytest.mark.parametrize(
    "source, told",
    [
        ("head", "head: head returns no tensor, nor several; take one of the modules in it"),
        ("neck[*]\n", "is not a source"),
        ("neck[" + "9" * 5000 + "]", "is not a source"),
        ("neck[\u0663]", "is not a source"),
    ],
)
def test_sources(detectors, source, told):  # noqa: F811
    """They gave an AttributeError, a ValueError of Python's limit of digits, or what they do not say."""
    with pytest.raises(UserError, match=told):
        detectors[0].levels(source)


@pytest.mark.parametrize("text", ["1000000.0%", "1e-7%", "12.3456789%", "20%"])
def test_a_target_reads_what_it_writes(text):
    """From a million percent on it wrote an exponent, which it did not read, and it kept six digits."""
    target = Target.parse(text)
    assert Target.parse(target.text) == target


@pytest.mark.parametrize(
    "path, value, told",
    [
        (("distill_loss",), [None], "distill_loss has to be the name of a loss, found "),
        (("distill_loss",), {"a": 1}, "distill_loss has to be the name of a loss, found "),
        (("distill", "plugins"), 3, "distill.plugins has to be a path or a list of paths, found 3"),
        (("distill", "plugins"), {"a": 1}, "distill.plugins has to be a path or a list of paths, found "),
    ],
)
def test_slim_files(tmp_path, path, value, told):
    slim, config = tmp_path / "slim.yml", tmp_path / "student.yml"
    config.write_text(dump({"_BASE_": [STUDENT], "num_classes": 3, "dataset_dir": None}))
    slim.write_text(dump(changed([(path, value)], [])))
    with pytest.raises(UserError, match=f"^{slim}: {told}"):
        plan(load_recipe(str(config), str(slim)).method)
