"""`tg.custom_vjp`: a function with a forward half and a backward half of the user's."""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable, Sequence
from typing import Any

from tracegrad import tree
from tracegrad.api.custom import Operand, Recipe, State, Values, backward_inputs, call, checked_gradient, line_of
from tracegrad.api.signature import Arguments, Parameters, exact_keys
from tracegrad.errors import ArgumentError, GradientError, ShapeError
from tracegrad.ir import Aval
from tracegrad.ir.aval import has_gradient
from tracegrad.trace import STATE, Traced, Tracer


class CustomVjp:
    """A function whose reverse-mode gradient is given by `defvjp`; made by `tg.custom_vjp`."""

    def __init__(self, fn: Callable[..., Any], nondiff_argnums: Sequence[int | str] | int | str = ()):
        if not callable(fn):
            raise ArgumentError(f"custom_vjp: {type(fn).__name__} is not a function", fix="pass a function")
        self.__name__ = getattr(fn, "__name__", type(fn).__name__)
        functools.update_wrapper(self, fn, updated=())
        self.fn = fn
        self.parameters = Parameters(fn, nondiff_argnums)
        self.fwd: Callable[..., Any] | None = None
        self.bwd: Callable[..., Any] | None = None

    def defvjp(self, fwd: Callable[..., Any], bwd: Callable[..., Any]) -> None:
        """Set the rule: `fwd(*args)` returns (result, residuals), `bwd(residuals, ct)` one gradient per argument."""
        for one, what in ((fwd, "fwd"), (bwd, "bwd")):
            if not callable(one):
                raise ArgumentError(f"{self.__name__}.defvjp: {what} is not a function", fix="pass two functions")
        self.fwd, self.bwd = fwd, bwd

    def traced_functions(self) -> list[Any]:
        """Return what a trace runs: what these read from outside is part of a program's signature."""
        return [self.fn, self.fwd, self.bwd]

    def __get__(self, instance: Any, owner: type | None = None) -> Any:
        """Bind as a method; the instance is an argument like any other."""
        return self if instance is None else functools.partial(self, instance)

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        if self.fwd is None or self.bwd is None:
            raise GradientError(
                f"{self.__name__}: its gradient has not been defined",
                fix=f"call {self.__name__}.defvjp(fwd, bwd) first",
            )
        args = self.positional(args, kwargs)
        state = STATE.get()
        arguments = self.parameters.split(args, {})
        on_tape = state.grad_off < 0 and any(getattr(x, "requires_grad", False) for x in arguments.leaves)
        if not state.traces and not on_tape:
            return self.fn(*args)
        return call(VjpRecipe(self, arguments, args))

    def positional(self, args: tuple[Any, ...], kwargs: dict[str, Any]) -> tuple[Any, ...]:
        """Return all arguments by position, defaults included: the rule knows no names."""
        signature = self.parameters.signature
        if signature is None:
            return args
        self.parameters.check_call(args, kwargs)
        bound = signature.bind(*args, **kwargs)
        bound.apply_defaults()
        named = [n for n in bound.kwargs if signature.parameters[n].kind is inspect.Parameter.KEYWORD_ONLY]
        if bound.kwargs:
            raise ArgumentError(
                f"{self.__name__}: {(named or list(bound.kwargs))[0]} cannot be passed by position",
                fix="declare the arguments of a custom_vjp function without `*` and `**`",
            )
        return bound.args


class VjpRecipe(Recipe):
    """One call of a `custom_vjp` function in a trace."""

    def __init__(self, function: CustomVjp, arguments: Arguments, args: tuple[Any, ...]):
        self.function = function
        self.name = function.__name__ if function.__name__.isidentifier() else "custom"
        self.arguments = arguments
        names = function.parameters.leaf_names(arguments.treedef)
        self.operands = [
            Operand.of(leaf, name, fix=f"name it in nondiff_argnums of {self.name}")
            for leaf, name in zip(arguments.leaves, names, strict=True)
        ]
        avals = tuple((o.aval, o.weak) for o in self.operands)
        self.key = (function, arguments.treedef, avals, exact_keys(arguments.static), arguments.static)
        self.nondiff = [v for i, v in enumerate(args) if function.parameters.name(i) in function.parameters.static]
        self.out_tree: tree.TreeDef
        self.state: State

    def args(self, leaves: Values) -> Any:
        return self.function.parameters.join(self.arguments.treedef, leaves, self.arguments.static)[0]

    def assemble(self, found: list[Any]) -> Any:
        return tree.unflatten(self.out_tree, found)

    def body(self) -> Traced:
        traced = self.trace(self.function.fn, lambda fn, leaves: fn(*self.args(leaves)), self.operands)
        self.out_tree = traced.out_tree
        return traced

    def forward(self) -> tuple[Traced, int]:
        assert self.function.fwd is not None
        Parameters(self.function.fwd).check_call(self.args(self.arguments.leaves), {})
        where = line_of(self.function.fwd)

        def run(fwd: Callable[..., Any], leaves: Values) -> Any:
            found = fwd(*self.args(leaves))
            if not isinstance(found, (tuple, list)) or len(found) != 2:
                raise ArgumentError(
                    f"{self.name}: fwd must return (result, residuals)", fix="return a pair", where=where
                )
            outputs, out_tree = tree.flatten(found[0])
            if out_tree != self.out_tree:
                raise ShapeError(
                    f"{self.name}: fwd returns the structure {shown(out_tree)}, the function {shown(self.out_tree)}",
                    fix="let fwd return (result of the function, residuals)",
                    where=where,
                )
            self.state = State.of(found[1])
            return outputs, self.state.residuals()

        return self.trace(self.function.fwd, run, self.operands, "_forward"), self.out_tree.num_leaves

    def backward(self, forward: Traced, count: int) -> tuple[Traced, tuple[int, ...]] | None:
        if not any(has_gradient(o.aval) for o in self.operands):
            return None
        assert self.function.bwd is not None
        ct = tree.unflatten(self.out_tree, range(count))
        Parameters(self.function.bwd).check_call((*self.nondiff, self.state, ct), {})
        wanted: list[int] = []

        def run(bwd: Callable[..., Any], leaves: Values) -> Any:
            split = len(leaves) - count
            residuals = self.state.restored(leaves[:split])
            ct = tree.unflatten(self.out_tree, leaves[split:])
            gradients = self.gradients(bwd(*self.nondiff, residuals, ct))
            wanted[:] = [i for i, g in enumerate(gradients) if g is not None]
            return [g for g in gradients if g is not None]

        traced = self.trace(self.function.bwd, run, backward_inputs(forward, count), "_backward")
        return traced, tuple(wanted)

    def gradients(self, found: Any) -> list[Any]:
        """Return one checked gradient, or None, for every operand."""
        bwd = self.function.bwd
        assert bwd is not None
        where, what = line_of(bwd), f"{self.name}: {getattr(bwd, '__name__', 'bwd')}"
        args, _ = tree.unflatten(self.arguments.treedef, range(len(self.operands)))
        static = self.function.parameters.static
        dynamic = [a for i, a in enumerate(args) if self.function.parameters.name(i) not in static]
        if not isinstance(found, (tuple, list)) or len(found) != len(dynamic):
            given = f"{len(found)} gradients" if isinstance(found, (tuple, list)) else f"a {kind_of(found)}"
            raise ArgumentError(
                f"{what} returns {given}, not a tuple with one gradient per argument ({len(dynamic)})",
                fix="return (gradient,)" if len(dynamic) == 1 else "return a tuple; None where there is no gradient",
                where=where,
            )
        gradients: list[Any] = [None] * len(self.operands)
        for argument, gradient in zip(dynamic, found, strict=True):
            if gradient is None:
                continue
            places, treedef = tree.flatten_with_none(argument)
            leaves, found_tree = tree.flatten_with_none(gradient)
            if treedef != found_tree:
                raise ArgumentError(
                    f"{what} returns a gradient of structure {shown(found_tree)} for one argument, {shown(treedef)}",
                    fix="return the argument's structure, with None where there is no gradient",
                    where=where,
                )
            for place, leaf in zip(places, leaves, strict=True):
                if place is not None:
                    gradients[place] = checked_gradient(what, leaf, self.operands[place], where)
        return gradients


def shown(treedef: tree.TreeDef) -> str:
    """Write a structure in one piece; `*` is an array."""
    return str(treedef).removeprefix("PyTreeSpec(").removesuffix(")").removesuffix(", NoneIsLeaf").replace(": ", ":")


def kind_of(value: Any) -> str:
    return str(value.aval) if isinstance(value, Tracer) and isinstance(value.aval, Aval) else type(value).__name__


def custom_vjp(fn: Callable[..., Any] | None = None, nondiff_argnums: Sequence[int | str] | int | str = ()) -> Any:
    """Give `fn` a gradient of your own, by two functions that are traced and compiled like any other.

    `fwd` takes the arguments of `fn` and returns `(result, residuals)`; `bwd(residuals, ct)` gets a cotangent of the
    result's structure, shapes and dtypes, and returns a tuple with one gradient for each argument: of its structure,
    shapes and dtypes, or None. Arguments named or numbered in `nondiff_argnums` are any hashable Python values; `bwd`
    gets them first. Arguments and results are pytrees. The rule is made of operations, so that second derivatives
    follow, and forward mode (`tg.jvp`) where `bwd` is linear in `ct`. Outside of transforms, `fn` runs as it is.

    Raises GradientError when a gradient is wanted by a traced value that `fn` reads from outside, and ShapeError,
    DTypeError or ArgumentError when the gradients of `bwd` do not fit the arguments.

    >>> import numpy as np, tracegrad as tg
    >>> @tg.custom_vjp
    ... def clipped(x):                     # the identity, whose gradient is clipped to [-1, 1]
    ...     return x
    >>> clipped.defvjp(lambda x: (x, None), lambda _, ct: (np.clip(ct, -1.0, 1.0),))
    >>> tg.grad(lambda x: np.sum(clipped(x) ** 2))(np.array([0.25, 3.0]))
    array([0.5, 1. ])
    """
    if fn is None:
        return functools.partial(custom_vjp, nondiff_argnums=nondiff_argnums)
    return CustomVjp(fn, nondiff_argnums)
