"""Builds ppdet objects from a config without a trace in ppdet's one global config.

The only module that touches ``ppdet.core.workspace.global_config``.
"""

import contextlib
import io

from ppkd.errors import UserError, nearest
from ppkd.yaml_io import Tagged

# ppdet registers it as a YAML tag; it calls any function that the file names.
_FORBIDDEN_TAGS = frozenset({"Callable"})


def _ppdet():
    """Import ppdet as its own tools do, so that every class of it is registered."""
    # ppdet prints at import that it misses numba, which only its tracking wants.
    with contextlib.redirect_stdout(io.StringIO()):
        import ppdet.engine  # noqa: F401
    from ppdet.core import workspace

    return workspace


def registered_names():
    """Names of all classes that ppdet has registered."""
    return set(_ppdet().get_registered_modules())


@contextlib.contextmanager
def scope(config):
    """Make `config` ppdet's global config inside the ``with`` block and put the former one back afterwards.

    Everything ppdet builds lazily (readers, data sets, metrics) has to happen inside. Scopes nest.

    Yields:
        ppdet's global config holding `config` alone.
    """
    workspace = _ppdet()
    table = workspace.global_config
    former = dict(table)
    contents = {k: dict(v) for k, v in former.items() if _is_schema(v)}

    def clear():
        for key in list(table):
            if _is_schema(table[key]):
                table[key].clear()
            else:
                del table[key]

    clear()
    try:
        workspace.merge_config(_materialise(config))
        yield table
    finally:
        clear()
        table.update(former)  # a config may have put its own value in place of a registered class
        for key, content in contents.items():
            table[key].clear()
            table[key].update(content)


def _is_schema(value):
    from ppdet.core.config.schema import SchemaDict

    return isinstance(value, SchemaDict)


def create(name, *args):
    """Create a registered ppdet object by name in the current scope and, given arguments, call it with them.

    Raises:
        UserError: no such class, or a parameter that it does not have.
    """
    workspace = _ppdet()
    if name not in workspace.global_config:
        raise UserError(f"ppdet has no class {name!r}{nearest(name, registered_names())}")
    try:
        made = workspace.create(name)
    except TypeError as error:
        raise UserError(f"{name}: a parameter in the config does not fit ppdet's class: {error}") from error
    except ValueError as error:
        if "not registered" in str(error) or "Missing injection" in str(error):
            raise UserError(f"{name}: {error}{nearest(str(error).split()[-1], registered_names())}") from error
        raise
    return made(*args) if args else made


def build_detector(config):
    """Build the detector that `config` describes, in a scope of its own.

    Returns:
        ppdet's model as ppdet's own trainer would have made it (train mode, random weights).
    """
    from paddle import nn

    with scope(config):
        model = create(config["architecture"])
        # What ppdet's trainer does to a model right after building it.
        if config["architecture"] == "YOLOX":
            for layer in model.sublayers():
                if isinstance(layer, nn.BatchNorm2D):
                    layer._epsilon, layer._momentum = 1e-3, 0.97
        transforms = (config.get("TestReader") or {}).get("sample_transforms")
        if transforms and hasattr(model, "load_meanstd"):
            model.load_meanstd(transforms)
    return model


def _materialise(value):
    """Deep-copy a config with every `Tagged` mapping turned into the ppdet object it names."""
    if isinstance(value, Tagged):
        import yaml

        constructors = yaml.FullLoader.yaml_constructors
        known = {k[1:] for k in constructors if isinstance(k, str) and k.startswith("!")} - _FORBIDDEN_TAGS
        if value.tag not in known:
            raise UserError(f"{value.where}: unknown tag !{value.tag}{nearest(value.tag, known)}")
        fields = {k: _materialise(v) for k, v in value.items()}
        try:
            return _class_of(value.tag)(*[_materialise(a) for a in value.args], **fields)
        except TypeError as error:
            raise UserError(f"{value.where}: !{value.tag}: {error}") from error
    if isinstance(value, dict):
        return {k: _materialise(v) for k, v in value.items()}
    if isinstance(value, (list, tuple)):
        return [_materialise(v) for v in value]
    return value


def _class_of(tag):
    """The class behind a tag: ppdet keeps it only in the closure of the constructor it gave to PyYAML."""
    import yaml

    constructor = yaml.FullLoader.yaml_constructors["!" + tag]
    return constructor.__closure__[0].cell_contents
