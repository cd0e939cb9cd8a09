"""A config names classes of ppdet that were judged, and gets no other by any way of writing a name."""

import inspect

import pytest

from ppkd.bridge import gate, judged
from ppkd.bridge.compat import named_classes
from ppkd.bridge.workspace import _tagged, _tags, create, import_ppdet, scope
from ppkd.errors import UserError
from ppkd.files.yaml_io import Tagged

LISTS = (judged.DATASETS, judged.TRANSFORMS, judged.SCHEDULES, judged.MODULES)


@pytest.fixture(autouse=True)
def nothing_allowed(monkeypatch):
    monkeypatch.setattr(gate, "_allowed", set())


def test_every_class_of_ppdet_is_judged():
    """So a class that a new ppdet brings is read by somebody before a config can name it."""
    import_ppdet()
    from ppdet.data import source, transform
    from ppdet.data.transform.operators import BaseOperator

    of_ppdet = {name for name, schema in _remembered().items() if schema.pymodule.__name__.startswith("ppdet.")}
    of_ppdet |= {name for name in _tags() if _tagged(name).__module__.startswith("ppdet.")}
    for module, base in ((transform, BaseOperator), (source, object)):
        for name, value in vars(module).items():
            if inspect.isclass(value) and value.__module__.startswith("ppdet.") and issubclass(value, base):
                of_ppdet.add(name)
                if name not in ("BaseOperator", *judged.REFUSED):
                    assert name in (judged.TRANSFORMS if module is transform else judged.DATASETS)
    assert len(of_ppdet) > 300
    assert of_ppdet - {"BaseOperator"} <= frozenset().union(*LISTS) | set(judged.REFUSED)
    assert not frozenset().union(*LISTS) & set(judged.REFUSED)


def _remembered():
    return {name: value for name, value in import_ppdet().global_config.items() if hasattr(value, "pymodule")}


def _dataset(name, **fields):
    return {"TrainDataset": {"name": name, **fields}}, "TrainDataset"


def _transform(transform, kind="sample_transforms", **fields):
    return {"TrainReader": {kind: [{transform: fields}], "batch_size": 1}}, "TrainReader"


WAYS = {
    "a data set by its name": _dataset("MOTImageFolder", dataset_dir=".", video_file="x;touch canary #.mp4"),
    "a function among the data sets": _dataset("video2frames", video_path="x;touch canary #", outpath="."),
    "a module among the data sets": _dataset("os"),
    "a transform that writes": _transform("DebugVisibleImage", output_dir="canary"),
    "another": _transform("VisibleRBox", output_dir="canary"),
    "a cache": _transform("DecodeCache", cache_root="canary"),
    "a function among the transforms": _transform("setup_logger", name="x", output="canary/log"),
    "among those of batches": _transform("setup_logger", "batch_transforms", name="x", output="canary/log"),
    "what holds the transforms": _transform("__class__", module="os", known=["system"], where="x"),
    "its list": _transform("__init__", module="os", known=["setup_logger"], where="x"),
    "its attributes": _transform("__dict__", "batch_transforms"),
    "in a transform": _transform("RandomSelect", transforms1=[{"setup_logger": {"name": "y", "output": "canary/log"}}],
                                 transforms2=[{"Decode": {}}]),
    "a function among the schedules": (
        {"LearningRate": {"schedulers": [{"name": "setup_logger", "output": "canary/log"}]}}, "LearningRate"),
    "an architecture that reads another config": (
        {"architecture": "CWDDistillModel", "CWDDistillModel": {"slim_cfg": "evil.yml"}}, "CWDDistillModel"),
    "a part by its name": ({"RetinaNet": {"backbone": "Pruner"}}, "RetinaNet"),
    "a part by a mapping": ({"DETRLoss": {"matcher": {"name": "OFA", "ofa_config": {}}}}, "DETRLoss"),
    "a tag": ({"RetinaNet": {"backbone": Tagged("MOTImageFolder", where="x.yml:2")}}, "RetinaNet"),
    "a tag deep in a list": ({"anything": [{"a": [Tagged("VisibleRBox", where="x.yml:2")]}]}, "RetinaNet"),
}  # fmt: skip


@pytest.mark.parametrize("way", WAYS)
def test_no_way_to_write_a_name_leads_to_a_class_that_acts(tmp_path, monkeypatch, way):
    monkeypatch.chdir(tmp_path)
    config, name = WAYS[way]
    with pytest.raises(UserError, match="a config may not name|is no class that a config may name here"), scope(config):
        made = create(name)
        if name == "TrainDataset":
            made()
    assert not (tmp_path / "canary").exists()


@pytest.mark.parametrize("section, kind", [("optimizer", "Optimizer"), ("optimizer", "lr"), ("regularizer", "os")])
def test_optimizers_are_those_of_the_list(section, kind):
    from paddle import nn

    config = {"OptimizerBuilder": {section: {"type": kind, "factor": 0.1}}}
    with pytest.raises(UserError), scope(config):
        create("OptimizerBuilder", 0.1, nn.Linear(2, 2))
    with scope({"OptimizerBuilder": {"optimizer": {"type": "AdamW"}, "regularizer": {"type": "L1", "factor": 0.1}}}):
        assert type(create("OptimizerBuilder", 0.1, nn.Linear(2, 2))).__name__ == "AdamW"


def test_what_is_refused_is_named_with_the_key_that_allows_it():
    with pytest.raises(UserError, match=r"x.yml:2: a config may not name OFA: .*PaddleSlim.*--allow-classes OFA"):
        gate.check("OFA", where="x.yml:2")
    with pytest.raises(UserError, match=r"a config may not name Newer: nobody has judged yet what it does"):
        gate.check("Newer")
    gate.allow(["OFA", "Newer"])
    gate.check("OFA")
    gate.check("Newer", type("Newer", (), {"__module__": "ppdet.modeling.new"}))
    with pytest.raises(UserError, match="setup_logger is no class"):  # nor can it be allowed
        gate.allow(["setup_logger"])
        gate.check("setup_logger", print)


def test_an_allowed_class_is_built(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    config, name = WAYS["a transform that writes"]
    gate.allow(["DebugVisibleImage"])
    with scope(config):
        create(name)
    assert (tmp_path / "canary").is_dir()


def test_classes_of_the_users_own_are_found(monkeypatch):
    """Of a plugin or a script: who runs that need not allow its classes besides."""
    from ppdet.core.workspace import register
    from ppdet.data import transform
    from ppdet.data.transform.operators import BaseOperator

    own = type("OwnTransform", (BaseOperator,), {"__module__": "their_plugin"})
    monkeypatch.setattr(transform, "OwnTransform", own, raising=False)
    with scope(_transform("OwnTransform")[0]):
        assert create("TrainReader")._sample_transforms.transforms_cls[0].__class__ is own
    import sys
    import types

    module = types.ModuleType("their_plugin")
    module.OwnNeck = type("OwnNeck", (), {"__module__": "their_plugin"})
    monkeypatch.setitem(sys.modules, "their_plugin", module)
    register(module.OwnNeck)
    try:
        with scope({}):
            assert type(create("OwnNeck")) is module.OwnNeck
    finally:
        del import_ppdet().global_config["OwnNeck"]


def test_ppdet_looks_up_whatever_its_modules_hold():
    """So the cure is needed: without it, `setup_logger` is a transform."""
    import_ppdet()
    from ppdet.data import reader, transform

    assert isinstance(reader.transform, gate.Namespace)
    assert "getattr(transform, k)" in inspect.getsource(reader.Compose.__init__)
    assert callable(transform.setup_logger)
    named_classes.look_classes_up_among_the_judged()
    inner = gate.vars_of(reader.transform)["module"]
    assert not isinstance(inner, gate.Namespace)  # applied again it changes nothing


def test_metrics_are_judged():
    from ppkd.training.evaluation import check_reader

    check_reader({"metric": "COCO"})
    for name in ("MOT", "Pose3DEval", ["COCO"]):
        with pytest.raises(UserError, match="metric: a config may not name"):
            check_reader({"metric": name})
