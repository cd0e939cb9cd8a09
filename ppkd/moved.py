"""Modules that stood directly in `ppkd` and moved into a wing are still found under their former name.

People's scripts, and the snippets of earlier documentation, import ``ppkd.reproduce`` or ``ppkd.tensor_files``. The
module is the same object under both names; a `DeprecationWarning` says the new one.
"""

import importlib
import importlib.util
import sys
import types
import warnings

# By wing; a table, since a wing may get a module of a former name that is another.
_WINGS = {
    "bridge": "bad_images datasets ground_truth normalisation own_data weights workspace",
    "demo": "demo picture",
    "detectors": "context layers recorders",
    "engine": "balance connectors loss_layers magnitude model pairing parallel sizes terms updates",
    "files": "convert download foreign locate paths tensor_files torch_files unpickle yaml_io yaml_loader",
    "methods": "block",
    "recipe": "keys plan recipe schedules targets teachers",
    "study": "bootstrap cells coco_matches compare cost detections runs samples",
    "terminal": "log progress table",
    "training": "averaging batch_size checkpoint digest evaluation learning_rate loader meters numerics precision "
    "record reproduce runlog stages step stopping trainer",
}
_RENAMED = {
    "export": "exporting.static",
    "matching": "engine.channel_matching",
    "onnx_export": "exporting.onnx",
    "views": "engine.teacher_inputs",
}
# Former name -> the one of today, both below `ppkd`.
NOW = {name: f"{wing}.{name}" for wing, names in _WINGS.items() for name in names.split()} | _RENAMED


class _Finder:
    """Asked last: only for names that nothing else finds."""

    def find_spec(self, name, path=None, target=None):
        package, _, module = name.rpartition(".")
        if package != "ppkd" or module not in NOW:
            return None
        spec = importlib.util.spec_from_loader(name, self)
        spec.loader_state = f"ppkd.{NOW[module]}"
        return spec

    def create_module(self, spec):
        warnings.warn(f"{spec.name} is {spec.loader_state} now", DeprecationWarning, stacklevel=2)
        return None

    def exec_module(self, module):
        found = importlib.import_module(module.__spec__.loader_state)
        if module.__name__.rpartition(".")[2] in sys.modules["ppkd"].__all__:
            found.__class__ = _Callable  # the import system puts it where the function of this name was
        # The import system hands out what stands in sys.modules in the end.
        sys.modules[module.__name__] = found


class _Callable(types.ModuleType):
    """A module that has the name of a function of `api`, and does what that does where it is called."""

    def __call__(self, *args, **kwargs):
        return sys.modules["ppkd"].__getattr__(self.__name__.rpartition(".")[2])(*args, **kwargs)


def find_moved_modules():
    """Let former names be imported; to be called once."""
    sys.meta_path.append(_Finder())
