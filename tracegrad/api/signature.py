"""Arguments as leaves: what a call looks like to the cache of compiled programs."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from tracegrad import tree
from tracegrad.errors import ArgumentError
from tracegrad.ir import Aval
from tracegrad.ir import layout as layouts
from tracegrad.ir.aval import NAMES, check_dtype, check_plain, peculiar
from tracegrad.numpy.promote import settle_shape
from tracegrad.record import record
from tracegrad.runtime.layout import WORTH_A_PROGRAM, layout_of
from tracegrad.trace import Tracer, scalar_dtype


@record
class Spec:
    """Shape and dtype of an argument that is not there yet; made by `tg.spec`."""

    shape: tuple[int, ...]
    dtype: np.dtype[Any]


def spec(shape: int | Sequence[int], dtype: Any = np.float64) -> Spec:
    """Describe an argument of `tg.compile` by shape and dtype instead of by an example.

    Raises ShapeError for negative sizes, ArgumentError for others than integers, and DTypeError for unknown dtypes.

    >>> spec((32, 10), np.float32)
    Spec(shape=(32, 10), dtype=dtype('float32'))
    """
    return Spec(settle_shape("spec", shape), check_dtype(dtype, "spec"))


def leaf_key(leaf: Any) -> Any:
    """Return what makes two leaves call for different programs; Python scalars of one type never do."""
    kind = type(leaf)
    if kind is np.ndarray:
        return array_key(leaf)
    if kind is float or kind is int or kind is bool:
        return kind
    return slow_key(leaf)


def array_key(array: np.ndarray[Any, Any]) -> Any:
    """Return shape and dtype of an array, and its layout, if programs read it as it is stored."""
    if array.nbytes < WORTH_A_PROGRAM or array.flags.c_contiguous or (layout := layout_of(array)) is None:
        return array.shape, array.dtype
    return array.shape, array.dtype, layout


def without_layout(key: Any) -> Any:
    """Return the key of an array in C order for that of one in another order, all other keys as they are."""
    return key[:2] if has_layout(key) else key


def has_layout(key: Any) -> bool:
    return isinstance(key, tuple) and len(key) == 3 and isinstance(key[2], tuple) and isinstance(key[1], np.dtype)


def slow_key(leaf: Any) -> Any:
    if peculiar(leaf):
        return type(leaf)
    if isinstance(leaf, np.ndarray):
        return array_key(leaf)
    if isinstance(leaf, (np.generic, Spec)):
        return tuple(leaf.shape), leaf.dtype
    if isinstance(leaf, Tracer):
        leaf.check_live()
        return leaf.shape, leaf.dtype
    if isinstance(leaf, (bool, int, float)):
        return scalar_dtype(leaf).type
    return type(leaf)


def leaf_aval(leaf: Any, name: str) -> tuple[Aval, bool]:
    """Return the aval of an argument leaf and whether it is weakly typed, or raise the user's error."""
    check_plain(leaf, f"argument {name}")
    if isinstance(leaf, (np.ndarray, np.generic, Spec)):
        return Aval(tuple(leaf.shape), check_dtype(leaf.dtype, f"argument {name}")), False
    if isinstance(leaf, (bool, int, float)):
        return Aval((), scalar_dtype(leaf)), True
    if isinstance(leaf, Tracer):
        return leaf.aval, leaf.weak
    if isinstance(leaf, str):
        raise ArgumentError(
            f"argument {name}: {leaf!r} is a string, not an array",
            fix=f"name it in static=, for instance tg.jit(fn, static=({name.split('[')[0]!r},))",
        )
    if hasattr(leaf, "__array_interface__") or hasattr(leaf, "__array__"):
        raise ArgumentError(
            f"argument {name}: a {type(leaf).__module__}.{type(leaf).__name__} is not a NumPy array",
            fix="pass np.asarray(x)",
        )
    raise ArgumentError(
        f"argument {name}: a value of type {type(leaf).__name__} is not an array, a number or a pytree of them",
        fix=f"pass an array, or name the argument in static=({name.split('[')[0]!r},)",
    )


@record
class Arguments:
    """One call, taken apart: dynamic leaves with their structure, static values by parameter position."""

    leaves: list[Any]
    treedef: tree.TreeDef
    static: tuple[tuple[str, Any], ...]

    @property
    def key(self) -> Any:
        return self.treedef, tuple([leaf_key(leaf) for leaf in self.leaves]), exact_keys(self.static), self.static


def exact_keys(static: tuple[tuple[str, Any], ...]) -> tuple[Any, ...]:
    """Return what tells equal static values apart that are no substitutes, such as 1 and 1.0."""
    return tuple([tree.exact_key(value) for _, value in static])


def absent(*args: Any, **kwargs: Any) -> Any:
    """Stand for the function of a program that was loaded from a file."""
    raise ArgumentError("the function of a loaded program is not there", fix="call the program itself")


class Parameters:
    """The parameters of a function: which are static, and how its leaves are named."""

    def __init__(self, fn: Callable[..., Any], static: Sequence[int | str] | int | str = ()):
        self.fn = fn
        try:
            self.signature: inspect.Signature | None = inspect.signature(fn)
        except (TypeError, ValueError):
            self.signature = None
        declared = list(self.signature.parameters.values()) if self.signature else []
        self.names = [p.name for p in declared if p.kind in (p.POSITIONAL_ONLY, p.POSITIONAL_OR_KEYWORD)]
        chosen = (static,) if isinstance(static, (int, str)) else tuple(static)
        self.static = frozenset(self.name(s) if isinstance(s, int) else s for s in chosen)
        open_ended = not declared or any(p.kind in (p.VAR_POSITIONAL, p.VAR_KEYWORD) for p in declared)
        if (unknown := self.static - {p.name for p in declared}) and not open_ended:
            raise ArgumentError(
                f"static={chosen!r}: the function has no argument {sorted(unknown)[0]}",
                fix=f"choose from {[p.name for p in declared]}",
            )

    @classmethod
    def stored(cls, names: Sequence[str], static: Sequence[str]) -> Parameters:
        """Return the parameters of a function that is not there: of a program from a file."""
        found = object.__new__(cls)
        found.fn = absent
        found.signature = None
        found.names = list(names)
        found.static = frozenset(static)
        return found

    def check_call(self, args: Sequence[Any], kwargs: dict[str, Any]) -> None:
        """Refuse arguments that the function does not take, before it is run on traced values."""
        if self.signature is None:
            return
        try:
            self.signature.bind(*args, **kwargs)
        except TypeError as error:
            name = getattr(self.fn, "__name__", type(self.fn).__name__)
            detail = str(error).replace(":", "")
            raise ArgumentError(f"{name}: {detail}", fix=f"call it with the arguments {self.signature}") from None

    def name(self, position: int) -> str:
        if position < 0:
            position += len(self.names)
        return self.names[position] if position < len(self.names) else f"argument{position}"

    def split(self, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Arguments:
        """Take a call apart."""
        if not self.static:
            leaves, treedef = tree.flatten((args, kwargs))
            return Arguments(leaves, treedef, ())
        static = {self.name(i): a for i, a in enumerate(args) if self.name(i) in self.static}
        static.update({k: v for k, v in kwargs.items() if k in self.static})
        for name, value in static.items():
            try:
                hash(value)
            except TypeError:
                raise ArgumentError(
                    f"static argument {name}: a {type(value).__name__} cannot be hashed",
                    fix="pass a tuple, a number or a string",
                ) from None
        dynamic = tuple(None if self.name(i) in self.static else a for i, a in enumerate(args))
        leaves, treedef = tree.flatten((dynamic, {k: v for k, v in kwargs.items() if k not in self.static}))
        return Arguments(leaves, treedef, tuple(sorted(static.items())))

    def join(self, treedef: tree.TreeDef, leaves: Sequence[Any], static: tuple[tuple[str, Any], ...]) -> Any:
        """Return (args, kwargs) with `leaves` put back."""
        args, kwargs = tree.unflatten(treedef, leaves)
        if static:
            given = dict(static)
            args = tuple(given.pop(self.name(i)) if self.name(i) in given else a for i, a in enumerate(args))
            kwargs = {**kwargs, **given}
        return args, kwargs

    def leaf_names(self, treedef: tree.TreeDef) -> list[str]:
        """Name every leaf of a call, for instance `params['w'][0]`."""
        found = []
        for path in treedef.paths():
            side, first, *rest = path
            base = self.name(first) if side == 0 else str(first)
            found.append(base + "".join(f"[{entry!r}]" for entry in rest))
        return found


def describe(key: Any) -> str:
    """Write the key of a leaf, for a message about why a function was traced again."""
    if has_layout(key):
        return f"{describe(key[:2])} {layouts.describe(key[2], key[0])}"
    if isinstance(key, tuple) and len(key) == 2 and isinstance(key[1], np.dtype):
        return str(Aval(key[0], key[1])) if key[1] in NAMES else f"{key[1]}{list(key[0])}"
    return getattr(key, "__name__", str(key))
