"""The text of a config of MMDetection as nested dicts, read without running it.

Such a text is a Python program of assignments: in one form the order of the keys is that of their author, in the other
it is that of the alphabet, and a list may go over several lines and end with a comma. So it is looked up by name.
"""

import ast
import operator
import re

_LIMIT = 1_000_000  # characters; a config has some thousands
_DEPTH = 60
_REPEATED = 100_000  # values that names may stand for, all together: names of names of names grow without end
_NUMBERS = {ast.Add: operator.add, ast.Sub: operator.sub, ast.Mult: operator.mul, ast.Div: operator.truediv}


class _Unknown(Exception):
    """An expression that is none of a plain value."""


def read(text):
    """The assignments of a config's text.

    A name that is assigned twice, as where the texts of a config and of its bases stand one after the other, has what
    the later one says over what the former one does.

    Args:
        text: any; of what is no such program nothing is found.

    Returns:
        name -> value: nested dicts and lists of plain values; what is none of them is left out.
    """
    if len(text) > _LIMIT:
        return {}
    # MMCV wrote the path of each file above its text.
    text = "\n".join(line for line in text.splitlines() if not re.fullmatch(r"\S+\.py", line.strip()))
    try:
        program = ast.parse(text)
    except (SyntaxError, ValueError, RecursionError, MemoryError):
        return {}
    reader = _Reader()
    for statement in program.body:
        if isinstance(statement, ast.Assign) and all(isinstance(x, ast.Name) for x in statement.targets):
            try:
                value = reader.value(statement.value, _DEPTH)
            except _Unknown:
                continue
            for target in statement.targets:
                reader.names[target.id] = _merged(reader.names.get(target.id), value)
    return reader.names


def within(tree, *path):
    """The dict at a path of keys; an empty one where there is none."""
    for key in path:
        tree = tree.get(key) if isinstance(tree, dict) else None
    return tree if isinstance(tree, dict) else {}


def find(tree, *keys):
    """The first dict, from the outside inwards, that has all of these keys; None if there is none."""
    waiting, seen = [tree], set()
    while waiting:
        value = waiting.pop(0)
        if id(value) in seen:
            continue
        if isinstance(value, (dict, list)):
            seen.add(id(value))
        if isinstance(value, dict) and all(key in value for key in keys):
            return value
        waiting += value.values() if isinstance(value, dict) else value if isinstance(value, list) else []
    return None


def numbers(value, count=None):
    """Floats of a list of numbers; None of anything else, or of another number of them."""
    if not isinstance(value, list) or not value or count not in (None, len(value)):
        return None
    return [float(x) for x in value] if all(type(x) in (int, float) for x in value) else None


def _merged(before, after):
    if not isinstance(before, dict) or not isinstance(after, dict) or after.get("_delete_"):
        return after
    return {**before, **{key: _merged(before.get(key), value) for key, value in after.items()}}


class _Reader:
    """Makes values of expressions.

    Attributes:
        names: of what was assigned -> value.
    """

    def __init__(self):
        self.names, self._left = {}, _REPEATED

    def value(self, node, depth):
        if depth == 0:
            raise _Unknown
        if isinstance(node, ast.Constant):
            return node.value
        if isinstance(node, ast.Name):
            return self._named(node.id)
        if isinstance(node, (ast.List, ast.Tuple)):
            return [self.value(item, depth - 1) for item in node.elts]
        if isinstance(node, ast.Dict):
            return self._pairs(zip(node.keys, node.values), depth - 1)
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id == "dict" and not node.args:
            return self._pairs(((word.arg, word.value) for word in node.keywords), depth - 1)
        if isinstance(node, ast.UnaryOp) and isinstance(node.op, ast.USub):
            return -self._number(node.operand, depth - 1)
        if isinstance(node, ast.BinOp) and type(node.op) in _NUMBERS:
            try:
                return _NUMBERS[type(node.op)](*(self._number(x, depth - 1) for x in (node.left, node.right)))
            except ArithmeticError:
                raise _Unknown from None
        raise _Unknown

    def _named(self, name):
        if name not in self.names:
            raise _Unknown
        self._left -= _size(self.names[name], self._left)
        if self._left <= 0:
            raise _Unknown
        return self.names[name]

    def _number(self, node, depth):
        value = self.value(node, depth)
        if type(value) not in (int, float) or abs(value) > 1e12:
            raise _Unknown
        return value

    def _pairs(self, pairs, depth):
        found = {}
        for key, node in pairs:
            try:
                value = self.value(node, depth)
                key = self.value(key, depth) if isinstance(key, ast.AST) else key
            except _Unknown:
                continue
            if isinstance(key, str):
                found[key] = value
            elif key is None and isinstance(value, dict):  # **another
                found |= value
        return found


def _size(value, most):
    """Number of values in a value, counted up to `most`."""
    waiting, count = [value], 0
    while waiting and count < most:
        value = waiting.pop()
        count += 1
        waiting += value.values() if isinstance(value, dict) else value if isinstance(value, list) else []
    return count
