"""`tg.Function`: a class with a forward and a backward of the user's, as `torch.autograd.Function`."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from tracegrad.api.custom import Operand, Recipe, State, Values, backward_inputs, call, checked_gradient, line_of
from tracegrad.api.signature import Parameters
from tracegrad.errors import ArgumentError, GradientError
from tracegrad.ir.aval import has_gradient
from tracegrad.ops.elementwise import stop_gradient
from tracegrad.trace import STATE, Traced, Tracer

APPLY: list[Callable[[type[Function], tuple[Any, ...]], Any]] = []
"""Other ways to apply a Function, tried first: each returns the result, or NotImplemented. The tape adds its own."""


class Context:
    """What `forward` leaves for `backward`: saved values, and any attribute that is set on it.

    `needs_input_grad` says for every argument whether it may have a gradient; in compiled code that is every
    floating-point array, and what nobody reads is removed from the program.
    """

    def __init__(self, needs_input_grad: Sequence[bool]):
        self.needs_input_grad = tuple(needs_input_grad)
        self.materialize_grads = True
        self._saved: tuple[Any, ...] = ()
        self._non_differentiable: tuple[Any, ...] = ()

    def save_for_backward(self, *values: Any) -> None:
        """Keep arrays (or None) for `backward`, where they are `ctx.saved_tensors`."""
        self._saved = values

    @property
    def saved_tensors(self) -> tuple[Any, ...]:
        return self._saved

    def mark_non_differentiable(self, *outputs: Any) -> None:
        """Say which results of `forward` have no gradient; `backward` gets zeros for them."""
        self._non_differentiable = outputs

    def is_non_differentiable(self, output: Any) -> bool:
        return any(output is o for o in self._non_differentiable)

    def set_materialize_grads(self, value: bool) -> None:
        """Say whether `backward` gets zeros (the default) or None for results that nothing depends on, on the tape.

        In compiled code it always gets zeros, which cost nothing.
        """
        self.materialize_grads = value

    def mark_dirty(self, *values: Any) -> None:
        raise GradientError(
            "mark_dirty: the forward of a tg.Function cannot change its arguments in place",
            fix="return a new array instead",
        )

    def __getattr__(self, name: str) -> Any:
        raise AttributeError(f"ctx has no attribute {name!r}: forward has not set it")


class Function:
    """A function with a gradient of its own: subclass it, and call `apply`.

    `forward(ctx, *args)` gets the arguments of `apply` and returns an array or a tuple of them; what it keeps with
    `ctx.save_for_backward(...)`, or as an attribute of `ctx`, is there again in `backward(ctx, *grads)`. That gets one
    cotangent per result, and returns one gradient per argument, of its shape and dtype, or None. As in PyTorch,
    `forward(*args)` and `setup_context(ctx, inputs, output)` may be two methods. Only arrays among the arguments have
    gradients; everything else (numbers, strings, None) is handed through.

    In transformed functions both methods are traced, and compiled into the same program. They are made of operations,
    so that second derivatives follow, and forward mode (`tg.jvp`) where `backward` is linear in its `grads`.

    Raises GradientError where a gradient is wanted and there is no `backward`, or where one is wanted by a traced value
    that is not an argument; ShapeError, DTypeError or ArgumentError when gradients do not fit the arguments.

    >>> import numpy as np, tracegrad as tg
    >>> class Exp(tg.Function):
    ...     @staticmethod
    ...     def forward(ctx, x):
    ...         y = np.exp(x)
    ...         ctx.save_for_backward(y)
    ...         return y
    ...     @staticmethod
    ...     def backward(ctx, grad):
    ...         (y,) = ctx.saved_tensors
    ...         return grad * y
    >>> tg.grad(lambda x: Exp.apply(x))(0.0)
    np.float64(1.0)
    """

    @staticmethod
    def forward(*args: Any) -> Any:
        """Compute the result."""
        raise ArgumentError("tg.Function: it has no forward", fix="define the static method forward(ctx, *args)")

    @staticmethod
    def setup_context(ctx: Context, inputs: tuple[Any, ...], output: Any) -> None:
        """Keep what `backward` needs; then `forward` takes no ctx."""

    @staticmethod
    def backward(ctx: Context, *grads: Any) -> Any:
        """Return one gradient per argument of `forward`."""
        raise NotImplementedError

    @classmethod
    def traced_functions(cls) -> list[Any]:
        """Return what a trace runs: what these read from outside is part of a program's signature."""
        return [cls.forward, cls.setup_context, cls.backward]

    @classmethod
    def apply(cls, *args: Any) -> Any:
        """Call the function."""
        for way in APPLY:
            found = way(cls, args)
            if found is not NotImplemented:
                return found
        if not STATE.get().traces:
            return run_forward(cls, Context([False] * len(args)), args)
        return call(FunctionRecipe(cls, args))


def is_array(value: Any) -> bool:
    return isinstance(value, (Tracer, np.ndarray, np.generic))


def takes_no_context(cls: type[Function]) -> bool:
    return cls.setup_context is not Function.setup_context


def run_forward(
    cls: type[Function], ctx: Any, args: Sequence[Any], forward: Callable[..., Any] | None = None
) -> Any:
    """Run the forward half on whatever values there are; `forward` may stand for a converted one."""
    forward = forward or cls.forward
    if not takes_no_context(cls):
        return forward(ctx, *args)
    output = forward(*args)
    cls.setup_context(ctx, tuple(args), output)
    return output


def result_tuple(cls: type[Function], found: Any) -> tuple[tuple[Any, ...], bool]:
    """Return the results as a tuple, and whether there was one alone."""
    outputs = found if isinstance(found, tuple) else (found,)
    for output in outputs:
        if isinstance(output, (list, dict, tuple)):
            raise ArgumentError(
                f"{cls.__name__}: forward returns a {type(output).__name__}",
                fix="return an array or a tuple of arrays",
                where=line_of(cls.forward),
            )
    return outputs, not isinstance(found, tuple)


def gradient_tuple(cls: type[Function], found: Any, count: int) -> tuple[Any, ...]:
    """Return one gradient per argument; further ones must be None."""
    gradients = found if isinstance(found, (tuple, list)) else (found,)
    if len(gradients) < count or any(g is not None for g in gradients[count:]):
        raise ArgumentError(
            f"{cls.__name__}: backward returns {len(gradients)} gradients for {count} arguments",
            fix="return one per argument of forward, None where there is no gradient",
            where=line_of(cls.backward),
        )
    return tuple(gradients[:count])


@dataclass(eq=False)
class FunctionRecipe(Recipe):
    """One call of `apply` in a trace."""

    cls: type[Function]
    args: tuple[Any, ...]

    def __post_init__(self) -> None:
        self.name = self.cls.__name__
        self.places = [i for i, a in enumerate(self.args) if is_array(a)]
        fix = f"pass plain arrays to {self.name}.apply"
        parameters = Parameters(self.cls.forward)
        first = 0 if takes_no_context(self.cls) else 1
        self.operands = [Operand.of(self.args[i], parameters.name(first + i), fix) for i in self.places]
        avals = iter([(o.aval, o.weak) for o in self.operands])
        self.key = (self.cls, *(next(avals) if is_array(a) else identity(a) for a in self.args))
        self.outputs: tuple[Any, ...] = ()
        self.fixed: list[bool] = []
        self.single = False
        self.state: State

    def assemble(self, found: list[Any]) -> Any:
        parts = iter(found)
        outputs = []
        for output, fixed in zip(self.outputs, self.fixed, strict=True):
            value = next(parts) if is_array(output) else output
            outputs.append(stop_gradient(value) if fixed and isinstance(value, Tracer) else value)
        return outputs[0] if self.single else tuple(outputs)

    def context(self) -> Context:
        floats = {i for i, o in zip(self.places, self.operands, strict=True) if has_gradient(o.aval)}
        return Context([i in floats for i in range(len(self.args))])

    def forward(self) -> tuple[Traced, int]:
        def run(forward: Callable[..., Any], leaves: Values) -> Any:
            args = list(self.args)
            for i, leaf in zip(self.places, leaves, strict=True):
                args[i] = leaf
            ctx = self.context()
            self.outputs, self.single = result_tuple(self.cls, run_forward(self.cls, ctx, args, forward))
            self.fixed = [ctx.is_non_differentiable(o) for o in self.outputs]
            self.state = State.of({k: v for k, v in vars(ctx).items() if k != "_non_differentiable"})
            return [o for o in self.outputs if is_array(o)], self.state.residuals()

        return self.trace(self.cls.forward, run, self.operands), sum(is_array(o) for o in self.outputs)

    def backward(self, forward: Traced, count: int) -> tuple[Traced, tuple[int, ...]] | None:
        if self.cls.backward is Function.backward:
            return None
        where = line_of(self.cls.backward)
        wanted: list[int] = []

        def run(backward: Callable[..., Any], leaves: Values) -> Any:
            split = len(leaves) - count
            ctx = self.context()
            vars(ctx).update(self.state.restored(leaves[:split]))
            cts = iter(leaves[split:])
            found = backward(ctx, *(next(cts) if is_array(o) else None for o in self.outputs))
            gradients = gradient_tuple(self.cls, found, len(self.args))
            kept = self.checked(gradients, where)
            wanted[:] = [i for i, g in enumerate(kept) if g is not None]
            return [g for g in kept if g is not None]

        traced = self.trace(self.cls.backward, run, backward_inputs(forward, count), "_backward")
        return traced, tuple(wanted)

    def checked(self, gradients: tuple[Any, ...], where: Any) -> list[Any]:
        """Return one checked gradient, or None, for every operand."""
        what = f"{self.name}: backward"
        for i, gradient in enumerate(gradients):
            if gradient is not None and i not in self.places:
                raise GradientError(
                    f"{what} returns a gradient for argument {i}, which is {self.args[i]!r} and not an array",
                    fix="return None in its place, or pass an array",
                    where=where,
                )
        return [
            checked_gradient(what, gradients[i], operand, where)
            for i, operand in zip(self.places, self.operands, strict=True)
        ]


def identity(value: Any) -> Any:
    """Return what tells two arguments that are no arrays apart."""
    try:
        hash(value)
    except TypeError:
        return id(value)
    return type(value), value


__all__ = ["Context", "Function", "gradient_tuple", "result_tuple", "run_forward"]
