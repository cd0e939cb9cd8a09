"""Changes of nested plain values, anywhere in them."""

from hypothesis import strategies as st

from ppkd.files.yaml_io import Tagged, clone

OUT = object()


def paths(value, before=()):
    """The paths of all values in nested mappings and lists."""
    parts = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    found = [before] if before else []
    return found + [path for key, part in parts for path in paths(part, (*before, key))]


def changed(value, changes):
    """A copy of `value` with others at some of its paths or new keys, or, for `OUT`, without what was there."""
    value = clone(value)
    for path, other in changes:
        here = value
        for key in path[:-1]:
            here = here[key] if _has(here, key) else None
        if other is OUT and isinstance(here, dict):
            here.pop(path[-1], None)
        elif other is not OUT and (isinstance(here, dict) or _has(here, path[-1])):
            here[path[-1]] = other if isinstance(other, Tagged) else clone(other)
    return value


def _has(here, key):
    return key in here if isinstance(here, dict) else isinstance(here, list) and type(key) is int and key < len(here)


def changes_of(value, others, most=2, more=()):
    """A strategy of changes for `changed`; `more` are paths of keys that are not there."""
    places = st.sampled_from([*paths(value), *more])
    return st.lists(st.tuples(places, others | st.just(OUT)), min_size=1, max_size=most)
