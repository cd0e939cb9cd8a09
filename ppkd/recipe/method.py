"""What a slim file says about the method, in its own keys; `methods` translates it into terms."""

from dataclasses import dataclass, field

from ppkd.errors import UserError
from ppkd.files.yaml_io import clone, merge
from ppkd.recipe.bank import KEY as BANK_KEY
from ppkd.recipe.hand_over import KEYS as HAND_OVER_KEYS
from ppkd.recipe.parting import KEYS as PARTING_KEYS
from ppkd.recipe.plan import SCHEDULE_KEYS
from ppkd.recipe.pseudo_boxes import NAME as PSEUDO_BOXES

# What a recipe's method is called that has none but its own terms.
TERMS = "terms"
ENGINE_OPTIONS = (
    "inherit", "numerics", "upstream_merge", "terms", "teachers", "plugins", BANK_KEY, *SCHEDULE_KEYS, *HAND_OVER_KEYS,
    *PARTING_KEYS, PSEUDO_BOXES,
)  # fmt: skip
# Methods whose parameters stand in a class of ppdet's that is no loss: in PaddleDetection's files the student's head.
SECTIONS = {"LD": ("LDGFLHead", ("loss_ld", "loss_ld_vlr", "loss_kd"))}


@dataclass
class MethodSpec:
    """What the slim file says about distillation, still in its own keys; `methods` translates it into terms.

    Attributes:
        name: value of ``slim_method`` (``FGD``, ...).
        params: the section named by ``distill_loss``, with ``-o distill.*`` merged in.
        levels: how many pyramid levels ``distill_loss_name`` lists, or None for all.
        options: keys of ``distill:`` that steer the engine: `ENGINE_OPTIONS`.
        file: for messages.
        architecture: the student's, on which defaults may depend.
        epochs: of the run, at which a decay of the weights ends.
        origin: dotted key of ``params`` or ``options`` -> file or ``-o`` that set it.
    """

    name: str
    params: dict = field(default_factory=dict)
    levels: int | None = None
    options: dict = field(default_factory=dict)
    file: str = ""
    architecture: str = ""
    epochs: int | None = None
    origin: dict = field(default_factory=dict)


def read_method(own, overrides, path):
    """The method as the slim file's own keys and ``-o distill.*`` say it.

    Raises:
        UserError: no method, or a key of it that is of another form.
    """
    loss = own.get("distill_loss")
    block = own.get("distill") or {}
    if not isinstance(loss, str | None):
        raise UserError(f"{path}: distill_loss has to be the name of a loss, found {loss!r}")
    if not isinstance(block, dict):
        raise UserError(f"{path}: distill has to be a mapping of options, found {block!r}")
    of_its_own = [key for key in ("terms", PSEUDO_BOXES) if block.get(key) or overrides.get(key)]
    name = own.get("slim_method") or loss or (TERMS if of_its_own else None)
    if name is None:
        raise UserError(
            f"{path}: `slim: Distill` without `slim_method`, `distill_loss`, or `terms` or `pseudo_boxes` in "
            "`distill:`: which method?"
        )
    section = own.get(loss) or {}
    if not isinstance(section, dict):
        raise UserError(f"{path}: {loss} has to be a mapping of parameters, found {section!r}")
    names = own.get("distill_loss_name")
    if not isinstance(names, list | None):
        raise UserError(f"{path}: distill_loss_name has to be a list, one name a level, found {names!r}")
    method = MethodSpec(str(name), clone(section), len(names) if names else None, {}, path)
    if isinstance(overrides.get("plugins"), str):
        overrides["plugins"] = [overrides["plugins"]]
    for source in map(_with_on, (block, overrides)):
        merge(method.options, {k: v for k, v in source.items() if k in ENGINE_OPTIONS})
        merge(method.params, {k: v for k, v in source.items() if k not in ENGINE_OPTIONS})
    return method


def _with_on(block):
    """A ``distill:`` block whose terms have the key ``on``, which YAML 1.1 reads as true."""
    terms = block.get("terms")
    if not isinstance(terms, dict):
        return block
    named = {
        name: {"on" if key is True else key: value for key, value in keys.items()} if isinstance(keys, dict) else keys
        for name, keys in terms.items()
    }
    return block | {"terms": named}


def complete(method, student, own):
    """Tell the method what it has to know of the student's file."""
    method.architecture, method.epochs = str(student.get("architecture", "")), student.get("epoch")
    section, keys = SECTIONS.get(method.name, (None, ()))
    found, origin = {}, {}
    for config, source in ((student, "the student's file"), (own, method.file)):
        values = config.get(section)
        if isinstance(values, dict):
            taken = {k: clone(v) for k, v in values.items() if k in keys and isinstance(v, dict)}
            origin |= dict.fromkeys(_paths(taken), source)
            merge(found, taken)
    method.params, method.origin = merge(found, method.params), origin | method.origin


def origins(layers, loss, overrides):
    """Who set which key of the method, by dotted path."""
    origin = {}
    for path, own in layers:
        for section in (own.get(loss), own.get("distill")):
            origin.update(dict.fromkeys(_paths(section or {}), path))
    return origin | dict.fromkeys(_paths(overrides), "-o")


def _paths(values, prefix=""):
    """Dotted paths of all leaves of nested mappings."""
    if not isinstance(values, dict) or not values:
        return [prefix[:-1]] if prefix else []
    return [path for key, value in values.items() for path in _paths(value, f"{prefix}{key}.")]
