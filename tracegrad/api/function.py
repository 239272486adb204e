"""Transformed functions: signature, cache of programs, and the three ways to run (compiled, inlined in a trace,
eager)."""

from __future__ import annotations

import functools
import gc
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, overload

import numpy as np

from tracegrad import lazy, tree
from tracegrad.api import retrace
from tracegrad.api.captures import Source
from tracegrad.api.draws import frozen, without_draws
from tracegrad.api.environment import Environment
from tracegrad.api.signature import Arguments, Parameters, leaf_aval
from tracegrad.api.transform import ADJOINT, LIFTED, Argnums, Call, Grad, Jit, Lowered, Transform
from tracegrad.codegen.caller_layout import AS_LIST
from tracegrad.config import config
from tracegrad.errors import ArgumentError, ShapeError
from tracegrad.inlining import inline
from tracegrad.ir import Aval
from tracegrad.record import record
from tracegrad.runtime import caller
from tracegrad.runtime.executable import Executable
from tracegrad.runtime.layout import WORTH_A_PROGRAM, layout_of
from tracegrad.runtime.program import Program, build
from tracegrad.trace import STATE, Tracer

if TYPE_CHECKING:
    from tracegrad.api import call
else:
    call = lazy.module("tracegrad.api.call")  # programs on the tape

Static = Sequence[int | str] | int | str
RECENT = 3
"""Programs of a function that are tried, in turn, before a call's signature is worked out."""
MISS = object()


class Specialised:
    """A program for one signature, with what is needed to call it and to put its results together."""

    def __init__(
        self,
        program: Program,
        out_tree: tree.TreeDef,
        captures: tuple[Source, ...],
        treedef: tree.TreeDef,
        leaves: Sequence[Any],
        watch: Environment | None = None,
    ):
        self.program = program
        self.out_tree = out_tree
        self.captures = captures
        self.body: call.Body | None = None
        self.watch = watch
        self.environment = watch.key() if watch else ()
        self.leaves = [leaf if type(leaf) in (bool, int, float) else None for leaf in leaves]
        self.native: Callable[[Any], Any] | None = None
        if isinstance(program.executable, Executable) and caller.usable(program.executable):
            found = caller.tree_caller(program.executable, treedef, leaves, len(captures), out_tree)
            self.native = None if found is None else found.call
        self.unflatten = out_tree.unflatten if caller.form_of(out_tree) == AS_LIST else None

    def __call__(self, leaves: list[Any]) -> Any:
        inputs = [*leaves, *[source.read() for source in self.captures]] if self.captures else leaves
        try:
            results = self.program(inputs)
        except ArgumentError:
            if not any(isinstance(x, Tracer) for x in inputs):
                raise
            results = self.on_tape(inputs)
        return tree.unflatten(self.out_tree, results)

    def on_tape(self, inputs: list[Any]) -> list[Any]:
        """Run on tensors, as one operation of the tape."""
        if self.body is None:
            self.body = call.Body(self.program.graph, len(self.program.graph.outputs))
        avals = [n.aval for n in self.program.graph.inputs]
        tensors = [typed_as(x, a) for x, a in zip(inputs, avals, strict=True)]
        return call.on_tape(self.body, self.program.donate, tensors)

    def fail(self, status: int) -> None:
        """Raise the error behind a status."""
        assert isinstance(self.program.executable, Executable)
        self.program.executable.fail(status)

    def direct(self, args: tuple[Any, ...]) -> Any:
        """Run on positional arguments without taking them apart in Python; MISS when they are not as expected."""
        if self.native is None:
            return MISS
        try:
            found = self.native((args, tuple([s.read() for s in self.captures])) if self.captures else args)
            if found is None:
                return MISS
            if type(found) is int:
                self.fail(found)
            return found if self.unflatten is None else self.unflatten(found)
        except MemoryError:
            return MISS  # the long way says how much was asked for


@record
class Parts:
    """What a compiled program is made of."""

    function: Callable[..., Any]
    name: str
    parameters: Parameters
    specialised: Specialised
    treedef: tree.TreeDef
    static: tuple[tuple[str, Any], ...]


class Function:
    """A function that is traced, transformed and compiled once per signature."""

    def __init__(self, fn: Callable[..., Any], transform: Transform, *, static: Static = (), backend: str = "cpu"):
        if not callable(fn):
            raise ArgumentError(
                f"{type(fn).__name__} is not a function", fix="pass a function: tg.jit(fn), not tg.jit(fn(x))"
            )
        self.__name__ = getattr(fn, "__name__", type(fn).__name__)
        functools.update_wrapper(self, fn, updated=())
        self.fn = fn
        self.transform = transform
        self.backend = backend
        self.parameters = Parameters(fn, static)
        self.programs: dict[Any, Specialised] = {}
        self.recent: tuple[Specialised, ...] = ()
        self._environment: Environment | None = None
        self._own: frozenset[str] = frozenset()
        self._exact: frozenset[str] = frozenset()

    @property
    def environment(self) -> Environment:
        if self._environment is None:
            self._environment = Environment.of(self.fn, self._own, self._exact)
        return self._environment

    @property
    def traces(self) -> int:
        """How many times the function has been traced to a program."""
        return len(self.programs)

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        state = STATE.get()
        if state.traces or state.eager:
            return self.run_traced(self.parameters.split(args, kwargs))
        outside = self.environment.key()
        if not kwargs:
            for recent in self.recent:
                if recent.environment == outside and (result := recent.direct(args)) is not MISS:
                    return result
        arguments = self.parameters.split(args, kwargs)
        found = self.programs.get((arguments.key, outside))
        if found is None:
            found = self.compile(arguments)
        if not arguments.static:
            self.recent = (found, *[s for s in self.recent if s is not found][: RECENT - 1])
        return found(arguments.leaves)

    def __get__(self, instance: Any, owner: type | None = None) -> Any:
        """Bind as a method; the instance is an argument like any other."""
        return self if instance is None else functools.partial(self, instance)

    def call_of(self, arguments: Arguments) -> Call:
        return Call(self.fn, self.parameters, arguments.treedef, arguments.static, lambda: self.environment)

    def run_traced(self, arguments: Arguments) -> Any:
        """Run inside a live trace by inlining the transformed graph, or eagerly."""
        state = STATE.get()
        call = self.call_of(arguments)
        if state.eager and all(t.computes for t in state.traces):
            with np.errstate(all="ignore"):
                return self.transform.eager(call, arguments.leaves)
        if isinstance(self.transform, Jit):
            return call.run(arguments.leaves)
        lowered = self.transform.lower(call, arguments.leaves)
        values = [typed(leaf) for leaf in arguments.leaves]
        return tree.unflatten(lowered.out_tree, inline(lowered.graph, [*values, *lowered.captures]))

    def lower(self, *args: Any, **kwargs: Any) -> Lowered:
        """Trace and transform for these arguments (arrays or `tg.spec`) without compiling; `.graph` prints."""
        arguments = self.parameters.split(args, kwargs)
        return self.transform.lower(self.call_of(arguments), arguments.leaves)

    def signature(self, arguments: Arguments, *, anew: bool = False) -> tuple[Any, tuple[Any, ...]]:
        """Return the key of a program: what the arguments and the outside variables are; look for the latter `anew`."""
        if anew:
            self._environment = None
        return arguments.key, self.environment.key()

    def lower_anew(self, arguments: Arguments) -> Lowered:
        """Trace and transform; refuse random numbers that every call would repeat."""
        outside = self.environment
        read = lambda: [*zip(outside.labels, outside.values(), strict=True), *arguments.static]
        lower = lambda: self.transform.lower(self.call_of(arguments), arguments.leaves)
        return without_draws(lower, same_program, self.__name__, "random" in outside.names, read)

    @contextmanager
    def watching(self) -> Iterator[None]:
        """Settle, while the function is traced, what of the outside belongs to its signature.

        Not what it changes itself, such as a list it appends to; of arrays that could not be traced, the contents.
        """
        before = self.environment.key()
        lifted: set[int] = set()
        token = LIFTED.set(lifted)
        try:
            yield
        finally:
            LIFTED.reset(token)
        changed = self.environment.changes(before)
        exact = {label for label, array in self.environment.arrays() if id(array) not in lifted}
        if changed - self._own or exact - self._exact:
            self._own, self._exact = self._own | changed, self._exact | exact
            self._environment = None

    def compile(self, arguments: Arguments) -> Specialised:
        """Compile for a new signature and keep the program."""
        key = self.signature(arguments, anew=True)
        if key in self.programs:
            return self.programs[key]
        name, known = self.__name__, len(self.programs)
        reason = retrace.reason(self.parameters, self.programs, key)
        if config.verbose and known:
            print(f"tracegrad: {name} is traced again because of {reason}", file=sys.stderr)
        retrace.announce(name, reason, known, stacklevel=3)
        found = self.specialise(arguments)
        self.programs[arguments.key, found.environment] = found
        return found

    def specialise(
        self, arguments: Arguments, donate: Sequence[int] = (), smallest: int = WORTH_A_PROGRAM
    ) -> Specialised:
        """Trace, transform, schedule and compile for one signature; arrays of `smallest` bytes and more are read as
        they are stored."""
        began = time.perf_counter()
        noted: list[float] = []
        token = ADJOINT.set(noted)
        try:
            with self.watching(), uncollected():
                lowered = self.lower_anew(arguments)
        finally:
            ADJOINT.reset(token)
        adjoint = sum(noted)
        traced = time.perf_counter() - began - adjoint
        names = self.parameters.leaf_names(arguments.treedef)
        layouts = [layout_of(value, smallest) for value in (*arguments.leaves, *lowered.captures)]
        program = build(lowered.graph, donate=donate, names=names, backend=self.backend, layouts=layouts)
        program.timings = {"trace": traced, "adjoint": adjoint, **program.timings}
        if config.verbose:
            total = time.perf_counter() - began
            print(f"tracegrad: {self.__name__} compiled in {total:.3f} s ({program.summary()})", file=sys.stderr)
        captures = self.environment.locate(lowered.captures)
        return Specialised(program, lowered.out_tree, captures, arguments.treedef, arguments.leaves, self.environment)


def same_program(one: Lowered, other: Lowered) -> bool:
    """Say whether two traces of a function have come out the same, their arrays included."""
    return str(one.graph) == str(other.graph) and all(
        a is b or frozen(a) == frozen(b) for a, b in zip(one.captures, other.captures, strict=True)
    )


@contextmanager
def uncollected() -> Iterator[None]:
    """Let the garbage collector rest: what tracing makes is alive, and looking for what is not takes a tenth of it."""
    enabled = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if enabled:
            gc.enable()


def typed_as(value: Any, aval: Aval) -> Any:
    """Return an input as a value of the tape; a tensor of another shape or dtype is refused."""
    if not isinstance(value, Tracer):
        return np.asarray(value, aval.dtype) if isinstance(value, (bool, int, float)) else value
    if value.aval != aval:
        raise ShapeError(f"argument: compiled for {aval} but called with the tensor {value.aval}", fix="compile for it")
    return value


def typed(leaf: Any) -> Any:
    """Give a Python scalar the dtype that its parameter was traced with."""
    if isinstance(leaf, (bool, int, float)):
        return leaf_aval(leaf, "")[0].dtype.type(leaf)
    return leaf


@overload
def jit(fn: Callable[..., Any], *, static: Static = (), backend: str = "cpu") -> Function: ...
@overload
def jit(fn: None = None, *, static: Static = (), backend: str = "cpu") -> Callable[[Callable[..., Any]], Function]: ...
def jit(fn: Callable[..., Any] | None = None, *, static: Static = (), backend: str = "cpu") -> Any:
    """Compile `fn`, once per signature of shapes, dtypes and static arguments.

    Arguments and results are pytrees of NumPy arrays and numbers. Python numbers are traced: changing one does not
    compile again. An array of 64 KiB or more that is stored transposed (`x.T`, Fortran order, any order of the axes),
    or as the first columns of wider rows, is read as it lies: its layout belongs to the signature. Other arrays that
    are not in C order are copied at each call. Results are in C order.

    `static` names (or numbers) the arguments that are not traced; they must be hashable.

    >>> import numpy as np, tracegrad as tg
    >>> f = tg.jit(lambda x: np.sin(x) + 1.0)
    >>> f(np.zeros(2))
    array([1., 1.])
    """
    if fn is None:
        return functools.partial(jit, static=static, backend=backend)
    return Function(fn, Jit(), static=static, backend=backend)


def grad(
    fn: Callable[..., Any] | None = None,
    argnums: Argnums = 0,
    has_aux: bool = False,
    static: Static = (),
    backend: str = "cpu",
) -> Any:
    """Return the function that computes the gradient of the scalar `fn` by reverse mode, compiled once per signature.

    `argnums` names or numbers the arguments to differentiate by; each may be a pytree, and its gradient has its
    structure. With `has_aux`, `fn` returns `(loss, aux)` and the gradient function `(gradient, aux)`. Raises
    GradientError when the result is not a floating-point scalar or an argument is not floating point.

    >>> import numpy as np, tracegrad as tg
    >>> @tg.grad
    ... def loss(x):
    ...     return np.mean(3.0 * (x - 2.0) ** 2)
    >>> loss(np.array([[1.0, 2.0], [3.0, 4.0]]))
    array([[-1.5,  0. ],
           [ 1.5,  3. ]])
    """
    if fn is None:
        return functools.partial(grad, argnums=argnums, has_aux=has_aux, static=static, backend=backend)
    return Function(fn, Grad(argnums, has_aux, with_value=False), static=static, backend=backend)


def value_and_grad(
    fn: Callable[..., Any] | None = None,
    argnums: Argnums = 0,
    has_aux: bool = False,
    static: Static = (),
    backend: str = "cpu",
) -> Any:
    """Like `grad`, but return `(value, gradient)`; with `has_aux`, `((value, aux), gradient)`.

    >>> import tracegrad as tg
    >>> tg.value_and_grad(lambda x: x * x)(3.0)
    (np.float64(9.0), np.float64(6.0))
    """
    if fn is None:
        return functools.partial(value_and_grad, argnums=argnums, has_aux=has_aux, static=static, backend=backend)
    return Function(fn, Grad(argnums, has_aux, with_value=True), static=static, backend=backend)
