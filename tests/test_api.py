"""The Python functions are the commands: same code, same defaults, plain values."""

import pathlib
import subprocess
import sys

import pytest

import ppkd
from ppkd import api, cli, commands
from ppkd.errors import UserError
from tests.conftest import CONFIGS, ROOT

TINY = str(CONFIGS / "ppyoloe_tiny.yml")


def test_importing_ppkd_stays_quick():
    """Nothing of the functions is imported before one is asked for."""
    heavy = ("paddle", "ppdet", "argparse", "ppkd.api", "ppkd.cli")
    script = f"import sys, ppkd; print([name for name in {heavy} if name in sys.modules])"
    done = subprocess.run([sys.executable, "-c", script], cwd=ROOT, capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def test_each_function_hands_the_command_what_it_is_given(monkeypatch):
    seen = {}

    def note(name, value):
        def command(args):
            seen[name] = args
            return value

        monkeypatch.setattr(commands, name, command)

    result = {"folder": "f", "weights": "w", "best": 0.5, "results": {"AP": 0.4}}
    note("train", result)
    note("evaluate", {"AP": 0.5})
    note("export", "folder")
    note("report", "page")
    note("compare", {"groups": []})
    note("distill", {"weights": "w", "report": "r", "results": {}})
    assert ppkd.train("s.yml", "slim.yml", epochs=3, opt={"seed": 1, "dataset_dir": "a b"}) == api.TrainResult(**result)
    assert (seen["train"].eval, seen["train"].slim_config) == (True, "slim.yml")
    assert seen["train"].opt == ["seed=1", "dataset_dir=a b", "epochs=3"]
    assert ppkd.evaluate("s.yml", "w.pdparams", imgsz=320, opt=["a=1"]) == {"AP": 0.5}
    assert seen["evaluate"].opt == ["a=1", "imgsz=320", "weights=w.pdparams"]
    assert ppkd.export("s.yml", "w", onnx=True) == "folder" and seen["export"].opset == 16
    assert ppkd.report(["a", "b"]) == "page" and seen["report"].output == "output/report"
    assert ppkd.compare(["a"], resamples=7) == {"groups": []} and seen["compare"].resamples == 7
    assert ppkd.distill("data", baseline=True, waive=["x"]).report == "r"
    assert seen["distill"].student == "ppyoloe_plus_small_custom" and seen["distill"].waive == ["x"]


def test_the_functions_are_among_what_python_proposes():
    assert set(ppkd.__all__) <= set(dir(ppkd)) and "errors" in dir(ppkd)


def test_every_function_is_documented_and_typed():
    page = (ROOT / "docs" / "api.md").read_text(encoding="utf-8")
    assert (ROOT / "ppkd" / "py.typed").exists()
    for name in ppkd.__all__:
        function = getattr(ppkd, name)
        assert f"ppkd.{name}(" in page and function.__doc__ and function.__annotations__["return"]
        assert f"ppkd {'eval' if name == 'evaluate' else 'infer' if name == 'predict' else name}" in function.__doc__
        assert function.__module__ == "ppkd.api"


def test_a_former_module_of_the_same_name_is_both(monkeypatch):
    monkeypatch.delitem(sys.modules, "ppkd.compare", raising=False)
    monkeypatch.setattr(api, "compare", lambda runs: f"compared {runs}")
    with pytest.warns(DeprecationWarning, match="ppkd.compare is ppkd.study.compare now"):
        import ppkd.compare
    from ppkd.study import compare as module

    assert ppkd.compare is module and module.grouped and ppkd.compare(["a"]) == "compared ['a']"
    del ppkd.compare


def test_training_evaluating_and_detecting_give_plain_records(shapes, tmp_path):
    opt = {"dataset_dir": str(shapes), "save_dir": str(tmp_path), "TrainReader.batch_size": 4}
    trained = ppkd.train(TINY, max_steps=1, opt=opt)
    assert trained.folder == str(tmp_path / "ppyoloe_tiny") and trained.results["AP"] == trained.best
    assert ppkd.evaluate(TINY, trained.weights, opt=opt) == trained.results
    images = sorted((pathlib.Path(shapes) / "val").iterdir())[:2]
    found = ppkd.predict(TINY, trained.weights, images, threshold=0.0, opt=opt)
    assert list(found) == [str(path) for path in images]
    for detections in found.values():
        scores = [each.score for each in detections]
        assert detections and scores == sorted(scores, reverse=True)
        assert all(each.name in ("disc", "square", "triangle", "star", "ring", "cross") for each in detections)
        assert all(each.box[0] <= each.box[2] and each.box[1] <= each.box[3] for each in detections)
    assert not any(found[str(path)] for path in images) or max(scores) <= 1
    assert ppkd.predict(TINY, trained.weights, f"{shapes}/val", threshold=1.1, opt=opt)[str(images[0])] == []
    assert not (tmp_path / "output").exists(), "nothing is drawn where that is not asked for"


def test_a_mistake_is_an_error_of_python():
    with pytest.raises(UserError, match=r"nowhere\.yml: no such config file"):
        ppkd.evaluate("nowhere.yml", "x.pdparams")
    with pytest.raises(UserError, match="no run is given"):
        ppkd.report([])


def test_the_commands_are_those_of_the_parsers():
    assert all(callable(getattr(commands, function)) for _, function, _ in cli.COMMANDS.values())
