"""Structures of pytrees as plain data that JSON can hold, and back: nothing is pickled, no text is evaluated.

A structure is `"*"` for a leaf, or a list whose first entry says what it is:

    ["tuple", children]  ["list", children]  ["none"]  ["dict", keys, children]
    ["ordered", keys, children]  ["default", factory, keys, children]  ["deque", longest, children]
    ["named", class, children]  ["node", class, static data, children]

Classes and functions are kept by name, `module:qualified.name`, and looked up by importing that module. A class that
is no registered pytree, or not what its name said, is refused.
"""

from __future__ import annotations

import collections
import importlib
import types
from collections.abc import Callable
from typing import Any

import numpy as np

from tracegrad import tree
from tracegrad.bfloat16 import as_dtype, is_bfloat16, text_of
from tracegrad.errors import ArtefactError

SCALARS = (bool, int, str)
NAMED = (type, types.FunctionType, types.BuiltinFunctionType, np.ufunc)


def encode(treedef: tree.TreeDef) -> Any:
    """Write a structure as plain data; raises ArtefactError for what another process could not look up by name."""
    return treedef.walk([None] * treedef.num_leaves, encode_node, lambda leaf: "*")


def encode_node(kind: type, data: Any, children: Any) -> Any:
    inner = list(children)
    if kind in (tuple, list):
        return [kind.__name__, inner]
    if kind is type(None):
        return ["none"]
    if kind is dict:
        return ["dict", [encode_value(k) for k in data], inner]
    if kind is collections.OrderedDict:
        return ["ordered", [encode_value(k) for k in data], inner]
    if kind is collections.defaultdict:
        return ["default", encode_value(data[0]), [encode_value(k) for k in data[1]], inner]
    if kind is collections.deque:
        return ["deque", encode_value(data), inner]
    if issubclass(kind, tuple) and hasattr(kind, "_fields"):
        return ["named", name_of(kind), inner]
    return ["node", name_of(kind), encode_value(data), inner]


def name_of(value: Any) -> str:
    """Return the name under which another process finds a class or a function."""
    module, name = getattr(value, "__module__", None) or "numpy", getattr(value, "__qualname__", value.__name__)
    try:
        found = look_up(f"{module}:{name}")
    except ArtefactError:
        found = None
    if found is not value:
        raise ArtefactError(
            f"save: {module}.{name} cannot be found by its name in another process",
            fix="define it at the top level of a module",
        )
    return f"{module}:{name}"


def encode_value(value: Any) -> Any:
    """Write static data: numbers, strings, None, dtypes, containers of them, named functions and classes."""
    kind = type(value)
    if value is None or kind in SCALARS:
        return value
    if kind is float:
        return {"float": value.hex()}
    if kind in (tuple, list):
        return {kind.__name__: [encode_value(v) for v in value]}
    if kind is dict:
        return {"dict": [[encode_value(k), encode_value(v)] for k, v in value.items()]}
    if isinstance(value, np.dtype):
        return {"dtype": text_of(value)}
    if isinstance(value, np.generic) and (value.dtype.kind in "biuf" or is_bfloat16(value.dtype)):
        return {"scalar": [text_of(value.dtype), value.tobytes().hex()]}
    if isinstance(value, NAMED):
        return {"name": name_of(value)}
    if fields := getattr(kind, "static_fields", None):
        return {"object": name_of(kind), "fields": [encode_value(getattr(value, f)) for f in fields]}
    raise ArtefactError(
        f"save: the static value {value!r} of type {kind.__name__} cannot be written to a file",
        fix="use numbers, strings, tuples of them, or functions defined at the top level of a module",
    )


def decode(data: Any) -> tree.TreeDef:
    """Rebuild a structure from what `encode` wrote; raises ArtefactError for data that is none."""
    try:
        return tree.flatten(rebuild(data))[1]
    except ArtefactError:
        raise
    except Exception as error:  # a registered class may raise anything when it is put together from wrong data
        raise ArtefactError(
            f"load: the structure of the arguments or results cannot be rebuilt: {type(error).__name__}: {error}",
            fix="save the program again with this version of its classes",
        ) from None


def rebuild(data: Any) -> Any:
    """Return a tree of that structure, with 0 for every leaf."""
    match data:
        case "*":
            return 0
        case ["none"]:
            return None
        case ["tuple", list(inner)]:
            return tuple(rebuild(c) for c in inner)
        case ["list", list(inner)]:
            return [rebuild(c) for c in inner]
        case ["dict" | "ordered" as kind, list(keys), list(inner)]:
            pairs = zip(map(decode_value, keys), map(rebuild, inner), strict=True)
            return dict(pairs) if kind == "dict" else collections.OrderedDict(pairs)
        case ["default", factory, list(keys), list(inner)]:
            pairs = zip(map(decode_value, keys), map(rebuild, inner), strict=True)
            return collections.defaultdict(decode_value(factory), pairs)
        case ["deque", longest, list(inner)]:
            return collections.deque(map(rebuild, inner), maxlen=longest)
        case ["named", str(name), list(inner)]:
            return named_tuple(name)(*map(rebuild, inner))
        case ["node", str(name), static, list(inner)]:
            put_together = registered(name)
            return put_together(decode_value(static), tuple(map(rebuild, inner)))
    raise ArtefactError(f"load: {str(data)[:60]} is not a structure", fix="save the program again")


def decode_value(data: Any) -> Any:
    """Read what `encode_value` wrote."""
    match data:
        case None | bool() | int() | str():
            return data
        case {"float": str(text)}:
            return float.fromhex(text)
        case {"tuple": list(parts)}:
            return tuple(decode_value(p) for p in parts)
        case {"list": list(parts)}:
            return [decode_value(p) for p in parts]
        case {"dict": list(pairs)}:
            return {decode_value(k): decode_value(v) for k, v in pairs}
        case {"dtype": str(text)}:
            return as_dtype(text)
        case {"scalar": [str(text), str(raw)]}:
            return np.frombuffer(bytes.fromhex(raw), as_dtype(text))[0]
        case {"object": str(name), "fields": list(parts)}:
            kind = look_up(name)
            if not isinstance(kind, type) or len(getattr(kind, "static_fields", ())) != len(parts):
                raise ArtefactError(f"load: {name} is not static data of a pytree", fix="save the program again")
            return kind(*map(decode_value, parts))
        case {"name": str(name)}:
            return named_object(name)
    raise ArtefactError(f"load: {str(data)[:60]} is not a static value", fix="save the program again")


def look_up(name: str) -> Any:
    """Import the module of `module:qualified.name` and return what stands there under that name."""
    module, _, path = name.partition(":")
    try:
        found: Any = importlib.import_module(module)
        for part in path.split("."):
            found = getattr(found, part)
    except (ImportError, AttributeError, ValueError, TypeError) as error:
        raise ArtefactError(
            f"load: {module}.{path} cannot be imported ({error})",
            fix="make the module that defines it importable, or save plain tuples and dicts instead",
        ) from None
    return found


def named_object(name: str) -> Any:
    found = look_up(name)
    if not isinstance(found, NAMED):
        raise ArtefactError(f"load: {name} is neither a function nor a class", fix="save the program again")
    return found


def named_tuple(name: str) -> Any:
    found = look_up(name)
    if not isinstance(found, type) or not issubclass(found, tuple) or not hasattr(found, "_fields"):
        raise ArtefactError(f"load: {name} is not a named tuple", fix="save the program again")
    return found


def registered(name: str) -> Callable[[Any, Any], Any]:
    """Return what puts an instance of a registered class together."""
    found = look_up(name)
    put_together = tree.registration(found) if isinstance(found, type) else None
    if put_together is None:
        raise ArtefactError(
            f"load: {name} is not registered as a pytree",
            fix="register it where its class is defined, with tracegrad.tree.register",
        )
    return put_together
