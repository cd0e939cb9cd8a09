"""Records what chosen modules of an untouched model return, by forward hooks that live only while a step runs."""

from functools import partial

from ppkd.errors import UserError, nearest


class Recorder:
    """Record the outputs of modules inside a ``with`` block.

    The hooks are module-level functions on the layers themselves, so that copying or pickling the model between
    steps never meets them, and they are removed when the block ends, also by an exception.

    Args:
        model: any ``nn.Layer``.
        paths: module paths, such as ``neck.fpn_res4_sum``.
        inputs_of: those of them whose arguments are kept too; None for all. What is kept is memory as long as it is.

    Attributes:
        outputs: path -> list of what the module returned, one entry a call (a head that is shared by all
            levels is called once a level).
        inputs: path -> list of the module's positional arguments, a tuple a call.
    """

    def __init__(self, model, paths, inputs_of=None):
        self._layers = {path: find_module(model, path) for path in dict.fromkeys(paths)}
        self._inputs_of = set(self._layers if inputs_of is None else inputs_of)
        self._handles = []
        self.outputs, self.inputs = {}, {}

    def __enter__(self):
        self.outputs = {path: [] for path in self._layers}
        self.inputs = {path: [] for path in self._layers if path in self._inputs_of}
        self._handles = [
            layer.register_forward_post_hook(partial(_record, self.outputs[path], self.inputs.get(path)))
            for path, layer in self._layers.items()
        ]
        return self

    def __exit__(self, *exception):
        for handle in self._handles:
            handle.remove()
        self._handles = []

    def take(self, tap):
        """The tensor that `tap` names among the recorded outputs.

        Raises:
            UserError: the module was not called often enough, or returned fewer tensors.
        """
        value = self._recorded(tap)
        if tap.derive is not None:
            value = tap.derive(value, *([self.take(tap.beside)] if tap.beside else ()))
        return value if tap.plus is None else value + self.take(tap.plus)

    def _recorded(self, tap):
        calls = (self.outputs if tap.argument is None else self.inputs)[tap.path]
        if tap.call >= len(calls):
            raise UserError(f"{tap.path} was called {len(calls)} times in this step; call {tap.call} does not exist")
        value = calls[tap.call] if tap.argument is None else calls[tap.call][tap.argument]
        if isinstance(value, (list, tuple)):
            if tap.item >= len(value):
                raise UserError(f"{tap.path} returns {len(value)} tensors; {tap.path}[{tap.item}] does not exist")
            value = value[tap.item]
        elif tap.item:
            raise UserError(f"{tap.path} returns one tensor; {tap.path}[{tap.item}] does not exist")
        return value

    def arguments(self, path):
        """The positional arguments of the first call of the module at `path`."""
        return self.inputs[path][0]

    def made_by_the_model(self, tap):
        """The tensors that `take` makes its own of, as they stand in the model's graph."""
        value = self._recorded(tap)
        if isinstance(value, (list, tuple)):  # a module that returns its maps beside something else
            value = tap.derive(value)
        return [value, *(self.made_by_the_model(tap.plus) if tap.plus else ())]


def recording(model, taps, also=()):
    """The `Recorder` of what `taps` take, and of the outputs of the modules at the paths `also`."""
    paths, inputs = ([path for tap in taps for path in getattr(tap, each)] for each in ("paths", "inputs_of"))
    return Recorder(model, [*paths, *also], inputs)


def _record(outputs, inputs, layer, given, output):
    outputs.append(output)
    if inputs is not None:
        inputs.append(given)


def find_module(model, path):
    """The sub-layer of `model` at `path`.

    Raises:
        UserError: there is none; the message gives the nearest paths that exist.
    """
    layer = _descend(model, path)
    if layer is None:
        known = [name for name, _ in model.named_sublayers()]
        raise UserError(f"{type(model).__name__} has no module {path!r}{nearest(path, known)}")
    return layer


def _descend(layer, path):
    # No split at the dots: ppdet gives layers names with dots in them, such as yolo_output.0.
    for name, child in layer._sub_layers.items():
        if path == name:
            return child
        if path.startswith(name + "."):
            found = _descend(child, path[len(name) + 1 :])
            if found is not None:
                return found
    return None


def paths_below(layer, prefix=""):
    """The paths of all modules; one that stands in two places (PicoDet's shared branches) has two."""
    for name, child in layer.named_children():
        yield f"{prefix}{name}"
        yield from paths_below(child, f"{prefix}{name}.")
