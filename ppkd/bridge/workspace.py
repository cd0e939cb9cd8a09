"""Builds ppdet objects from a config without a trace in ppdet's one global config.

The only module that touches ``ppdet.core.workspace.global_config``.
"""

import contextlib
import io
import re

from ppkd.bridge import coco_reading, gate, judged
from ppkd.bridge.compat.safe_load import restricted
from ppkd.bridge.compat.twin_config import without_twin
from ppkd.bridge.host import version_of_ppdet
from ppkd.bridge.imports import why_not_imported
from ppkd.bridge.ppdet_log import route
from ppkd.bridge.room import bounded
from ppkd.bridge.swallowed import check_swallowed
from ppkd.errors import UserError, nearest
from ppkd.files.write import is_of_the_disk
from ppkd.files.yaml_io import Tagged


def import_ppdet():
    """Import ppdet as its own tools do, so that every class of it is registered; returns its workspace module.

    Raises:
        UserError: it lacks a package, or one of them is broken.
    """
    # ppdet prints at import that it misses numba, which only its tracking wants.
    try:
        with contextlib.redirect_stdout(io.StringIO()):
            import ppdet.engine  # noqa: F401
    except UserError:
        raise
    except Exception as error:  # a package that is broken, or made for another numpy, says so in its own way
        if (why := why_not_imported(error)) is None:
            raise
        raise UserError(why) from error
    from ppdet.core import workspace

    route()
    return workspace


def registered_names():
    """Names of all classes that ppdet has registered, those included that no config may name."""
    return set(_classes) | set(import_ppdet().get_registered_modules())


@contextlib.contextmanager
def scope(config):
    """Make `config` ppdet's global config inside the ``with`` block and put the former one back afterwards.

    Everything ppdet builds lazily (readers, data sets, metrics) has to happen inside. Scopes nest. Classes that
    a config may not name (`gate`) are not in it.

    Yields:
        ppdet's global config holding `config` alone.
    """
    workspace = import_ppdet()
    table = workspace.global_config
    _remember_classes(table)
    former, contents = dict(table), {name: dict(schema) for name, schema in _classes.items()}
    _reset(table, {name: schema for name, schema in _classes.items() if gate.admits(name, _class_of(schema))}, {})
    try:
        workspace.merge_config(_materialise(config))
        with restricted(), coco_reading.reading():
            yield table
    finally:
        _remember_classes(table)
        registered_inside = {name: schema for name, schema in _classes.items() if name not in contents}
        _reset(table, registered_inside | former, contents)


# Registered classes by name, also those in whose place a config of an outer scope has put a value of its own.
_classes = {}


def _remember_classes(table):
    _classes.update({name: value for name, value in table.items() if _is_schema(value)})


def _reset(table, entries, contents):
    """Make `entries` the table and `contents` what configs have set of the registered classes."""
    table.clear()
    table.update(entries)
    for name, schema in _classes.items():
        schema.clear()
        schema.update(contents.get(name, {}))


def _class_of(schema):
    return getattr(schema.pymodule, schema.name, None)


def _is_schema(value):
    from ppdet.core.config.schema import SchemaDict

    return isinstance(value, SchemaDict)


def create(name, *args):
    """Create a registered ppdet object by name in the current scope and, given arguments, call it with them.

    Raises:
        UserError: no such class, or a parameter or value that it does not take.
    """
    workspace = import_ppdet()
    if not isinstance(name, str):
        raise UserError(f"the name of a class of ppdet was expected, found {name!r}")
    if name not in workspace.global_config:
        raise _not_there(name)
    with built_from_config(name):
        made = workspace.create(name)
        return made(*args) if args else made


@contextlib.contextmanager
def built_from_config(name):
    """A block in which ppdet makes `name` of a config's values, whose errors are told as those of the config.

    Raises:
        UserError: for any error but those of the disk: values go through all of ppdet, Paddle and NumPy.
    """
    try:
        yield
    except (UserError, SystemError):  # Paddle's word for a lost process, wherever the program is
        raise
    except Exception as error:
        if isinstance(error, OSError) and is_of_the_disk(error):
            raise
        wrong = _unknown_class(error, import_ppdet().global_config) if isinstance(error, ValueError) else None
        if wrong is not None:
            raise _not_there(wrong, f"{name}: ") from error
        reason = " ".join(f"{type(error).__name__}: {error}".split())
        reason = re.sub(r"\. Did you mean '\w+'\?$", "", reason)  # from Python 3.13 on, beside ours
        raise UserError(f"{name} cannot be built from this config: {reason[:300]}{_nearest_to(error)}") from error


def _not_there(name, where=""):
    if name in _classes:
        gate.check(name, where=where.removesuffix(": "))
    if name in judged.MODULES - registered_names():
        return UserError(
            f"{where}this PaddleDetection ({version_of_ppdet()}) has no {name}, others have: ppkd hosts says which one "
            "is here, docs/hosts.md how to take a clone, which has what came after the wheel of 2023"
        )
    return UserError(f"{where}ppdet has no class {name!r}{nearest(name, registered_names())}")


def _nearest_to(error):
    """The nearest names to an unknown attribute of a module (a scheduler, a transform) or parameter of a class."""
    if isinstance(error, AttributeError):
        return nearest(error.name, dir(error.obj)) if error.name else ""
    match = re.match(r"(\w+)\.__init__\(\) got an unexpected keyword argument '(\w+)'", str(error))
    schema = _classes.get(match[1]) if match else None
    return nearest(match[2], schema.schema) if schema is not None else ""


def _unknown_class(error, table):
    """The class name that ppdet's ``create`` did not find, or None if the error is about something else."""
    text = " ".join(str(part) for part in error.args)
    match = re.search(r"The module (\S+) is not registered|Missing injection config: (\S+)", text)
    if match:
        return match[1] or match[2]
    match = re.search(r"Missing injection name (\S+)", text)  # names the field, not the class
    values = [v.get(match[1]) for v in table.values() if isinstance(v, dict)] if match else []
    names = [v.get("name") for v in values if isinstance(v, dict)]
    return next((name for name in names if isinstance(name, str) and name not in table), None)


def build_detector(config):
    """Build the detector that `config` describes, in a scope of its own.

    Returns:
        ppdet's model as ppdet's own trainer would have made it (train mode, random weights).

    Raises:
        UserError: a class, parameter or value that ppdet does not take; it is larger than the memory.
    """
    from paddle import nn

    config = without_twin(config)
    with scope(config):
        check_swallowed(config, lambda name: _class_of(_classes[name]) if name in _classes else None)
        with bounded():
            model = create(config.get("architecture"))
        # What ppdet's trainer does to a model right after building it.
        if config["architecture"] == "YOLOX":
            for layer in model.sublayers():
                if isinstance(layer, nn.BatchNorm2D):
                    layer._epsilon, layer._momentum = 1e-3, 0.97
        with built_from_config("TestReader"):
            transforms = (config.get("TestReader") or {}).get("sample_transforms")
            if transforms and hasattr(model, "load_meanstd"):
                model.load_meanstd(transforms)
    return model


def _materialise(value):
    """Deep-copy a config with every `Tagged` mapping turned into the ppdet object it names."""
    if isinstance(value, Tagged):
        known = _tags()
        if value.tag not in known:
            raise UserError(f"{value.where}: unknown tag !{value.tag}{nearest(value.tag, known)}")
        kind = _tagged(value.tag)
        gate.check(value.tag, kind, value.where)
        fields = {k: _materialise(v) for k, v in value.items()}
        try:
            return kind(*[_materialise(a) for a in value.args], **fields)
        except Exception as error:  # as `built_from_config`: a value that the class does not take
            raise UserError(f"{value.where}: !{value.tag}: {' '.join(str(error).split())[:300]}") from error
    if isinstance(value, dict):
        return {k: _materialise(v) for k, v in value.items()}
    if isinstance(value, (list, tuple)):
        return [_materialise(v) for v in value]
    return value


def _tags():
    """Tags of the classes that ppdet has registered; other packages in this process may have registered theirs."""
    import yaml

    ours = {
        name[1:]
        for name, make in yaml.FullLoader.yaml_constructors.items()
        if isinstance(name, str) and name.startswith("!") and make.__module__ == "ppdet.core.config.yaml_helpers"
    }
    return ours


def _tagged(tag):
    """The class behind a tag: ppdet keeps it only in the closure of the constructor it gave to PyYAML."""
    import yaml

    constructor = yaml.FullLoader.yaml_constructors["!" + tag]
    return constructor.__closure__[0].cell_contents
