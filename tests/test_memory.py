"""What reverse mode keeps: bounded by checkpoints, given back when memory runs out and when Ctrl-C ends a loop."""

from __future__ import annotations

import ctypes
import math
import os
import subprocess
import sys
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from compiled import avals, graph_of

import tracegrad as tg
from tracegrad import tree
from tracegrad.codegen.native import compile_ir
from tracegrad.codegen.rewind_region import SPLIT
from tracegrad.errors import ArgumentError
from tracegrad.grad.adjoint import joint
from tracegrad.grad.partition import partition
from tracegrad.ir import Graph, interpret, parse, verify
from tracegrad.ops.rewind import rewind, split
from tracegrad.runtime.objects import load_object
from tracegrad.trace import trace

WAYS = [pytest.param(nullcontext, id="compiled"), pytest.param(tg.eager, id="eager")]
LINUX = pytest.mark.skipif(not Path("/proc/self/statm").exists(), reason="reads the process's memory in /proc")
X = np.array([0.4, -0.7, 1.3])


def until(n: Any, x: Any, k: Any, **options: Any) -> Any:
    """A loop whose number of rounds depends on its carry, with carries of every kind."""

    def body(c: Any) -> Any:
        return {
            "i": c["i"] + np.int32(1),
            "odd": ~c["odd"],
            "x": np.where(c["odd"], np.sin(c["x"]) + k, c["x"] * k),
            "sum": c["sum"] + np.sum(c["x"]),
        }

    init = {"i": np.int32(0), "odd": np.bool_(False), "x": x, "sum": np.float64(0.0)}
    found = tg.while_loop(lambda c: c["i"] < n, body, init, **options)
    return np.sum(found["x"] * found["x"]) + found["sum"]


OPTIONS: list[dict[str, Any]] = [{"checkpoint": k} for k in (1, 3, True)] + [{"slots": k} for k in (1, 3, 9)]


# --- the same values ----------------------------------------------------------------------------------------------
@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("options", OPTIONS, ids=str)
def test_checkpoints_change_no_value_and_no_gradient(options: dict[str, Any], way: Any) -> None:
    plain = tg.value_and_grad(until, argnums=(1, 2))
    less = tg.value_and_grad(lambda n, x, k: until(n, x, k, **options), argnums=(1, 2))
    with way():
        for n in (0, 1, 2, 3, 4, 7, 11, 30):
            value, gradients = plain(n, X, 0.9)
            found, others = less(n, X, 0.9)
            assert found == value
            for a, b in zip(others, gradients, strict=True):
                np.testing.assert_allclose(a, b, rtol=1e-12, atol=1e-14)


@pytest.mark.parametrize("options", [{"checkpoint": True}, {"slots": 3}], ids=str)
def test_gradients_of_gradients_through_checkpoints(options: dict[str, Any]) -> None:
    fn = lambda x, **o: tg.while_loop(lambda c: np.sum(c) < 9.0, lambda c: c * 1.3 + np.sin(c) * x + 0.3, x, **o)
    total = lambda x, **o: np.sum(fn(x, **o) ** 2)
    expected = tg.hessian(total)(X)
    less = lambda x: total(x, **options)
    for hessian in (tg.hessian(less), tg.jacrev(tg.grad(less)), tg.jacrev(lambda x: tg.jacfwd(less)(x))):
        np.testing.assert_allclose(hessian(X), expected, rtol=1e-11)


@pytest.mark.parametrize("options", [{"checkpoint": True}, {"slots": 3}], ids=str)
def test_checkpointed_loops_in_other_loops(options: dict[str, Any]) -> None:
    def fn(x: Any, **o: Any) -> Any:
        grow = lambda c: tg.while_loop(lambda v: np.sum(v * v) < 9.0, lambda v: v * 1.2 + 0.1 * x, c, **o)
        swept = tg.scan(lambda c, _: (0.2 * grow(c), np.sum(c)), x, None, length=3)
        inner = lambda c: (c[0] + 1, tg.cond(c[0] > 1, grow, np.sin, c[1]))
        return np.sum(swept[0]) + np.sum(swept[1]) + np.sum(tg.while_loop(lambda c: c[0] < 4, inner, (0, x), **o)[1])

    value, gradient = tg.value_and_grad(fn)(X)
    found, other = tg.value_and_grad(lambda x: fn(x, **options))(X)
    np.testing.assert_allclose(found, value, rtol=1e-14)
    np.testing.assert_allclose(other, gradient, rtol=1e-12)


@pytest.mark.parametrize("options", OPTIONS, ids=str)
def test_a_checkpointed_fori_loop_whose_limits_are_traced(options: dict[str, Any]) -> None:
    body = lambda i, c: np.sin(c) + 0.1 * i
    plain = tg.grad(lambda x, n: tg.fori_loop(2, n, body, x))
    less = tg.grad(lambda x, n: tg.fori_loop(2, n, body, x, **options))
    for n in (0, 3, 9):
        np.testing.assert_allclose(less(0.3, n), plain(0.3, n), rtol=1e-12)


@pytest.mark.parametrize("slots", [1, 2, 3, 7])
def test_slots_cost_as_few_rounds_as_they_can(slots: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """Griewank & Walther: r n - b(slots + 1, r - 1) with b(c, r) = C(c + r, c) and the least r of b(slots, r) >= n."""
    advance = graph_of(lambda c: c + 1, np.int64(0))
    step = graph_of(lambda s, c: s * 3 + c, np.int64(0), np.int64(0))
    ran: list[Graph] = []
    monkeypatch.setattr("tracegrad.ops.rewind.interpret", lambda g, *values: ran.append(g) or interpret(g, *values))
    for n in (0, 1, 2, 3, 4, 5, 10, 17, 40, 99):
        ran.clear()
        (total,) = rewind(np.int64(n), np.int64(5), np.int64(1), advance=advance, step=step, n_carry=1, slots=slots)
        expected = np.int64(1)
        with np.errstate(over="ignore"):
            for i in range(n - 1, -1, -1):
                expected = expected * 3 + (5 + i)
        assert total == expected
        r = next(r for r in range(n + 1) if math.comb(slots + r, r) >= n)
        assert (ran.count(advance), ran.count(step)) == (r * n - math.comb(slots + r, r - 1) if r else 0, n)


def test_compiled_code_splits_as_the_eager_rule_does() -> None:
    found = load_object(compile_ir(SPLIT.replace("internal ", ""), "split"), ["tg_split"])
    compiled = ctypes.CFUNCTYPE(ctypes.c_int64, ctypes.c_int64, ctypes.c_int64)(found["tg_split"])
    for gap in (1, 2, 3, 5, 10, 100, 12345, 10**9):
        for slots in (2, 3, 4, 10, 100):
            assert compiled(gap, slots) == split(gap, slots)


def test_a_loop_with_slots_as_text() -> None:
    graph = joint(graph_of(lambda n, x, k: until(n, x, k, slots=2), np.int64(3), X, np.float64(0.9)), [1, 2])
    assert "rewind(" in str(graph) and "slots=2" in str(graph)
    assert str(verify(parse(str(graph)))) == str(graph)


@pytest.mark.parametrize("checkpoint", [-1, 2.0, None, "yes"])
def test_a_checkpoint_that_is_no_number_of_rounds_is_refused(checkpoint: Any) -> None:
    fix = "pass a number of rounds, or True"
    with pytest.raises(ArgumentError, match=f"while_loop at .*: checkpoint is {checkpoint!r}\n  fix: {fix}"):
        tg.while_loop(lambda c: c < 3, lambda c: c + 1, 0, checkpoint=checkpoint)
    with pytest.raises(ArgumentError, match=f"scan at .*: checkpoint is {checkpoint!r}\n  fix: {fix}"):
        tg.scan(lambda c, x: (c, x), 0, X, checkpoint=checkpoint)


@pytest.mark.parametrize("options", [{"slots": -1}, {"slots": 2.0}, {"slots": 2, "checkpoint": 3}], ids=str)
def test_slots_that_are_no_number_of_carries_are_refused(options: dict[str, Any]) -> None:
    with pytest.raises(ArgumentError, match=r"fori_loop at .*: slots is .*\n  fix: pass one of them"):
        tg.fori_loop(0, 3, lambda i, c: c + 1, 0, **options)
    with pytest.raises(ArgumentError, match=r"while_loop at .*: slots is .*\n  fix: pass one of them"):
        tg.while_loop(lambda c: c < 3, lambda c: c + 1, 0, **options)


# --- tg.checkpoint ------------------------------------------------------------------------------------------------
def chain(layers: int, wrap: Any) -> Any:
    """A chain of layers of five values each, of which `wrap` may keep the first one only."""

    def layer(x: Any, w: Any) -> Any:
        h = np.tanh(x @ w)
        h = np.sin(h @ w) * h
        return np.exp(-h * h) @ w + x

    def loss(ws: Any, x: Any) -> Any:
        for w in ws:
            x = wrap(layer)(x, w)
        return np.mean(x * x)

    return loss, [np.full((16, 16), 0.1) + 0.2 * np.eye(16) * i for i in range(layers)]


def test_checkpoint_bounds_the_arena_of_a_chain_of_layers() -> None:
    """Beyond the first layers, one more layer takes its input and no other value of its 256 rows."""
    rows = np.linspace(-1.0, 1.0, 256 * 16).reshape(256, 16)
    arena: dict[tuple[int, bool], int] = {}
    found = {}
    for layers in (4, 8):
        for kept in (True, False):
            loss, ws = chain(layers, tg.checkpoint if kept else lambda f: f)
            program = tg.compile(tg.value_and_grad(loss, argnums=(0, 1)), ws, rows)
            found[kept] = program(ws, rows)
            arena[layers, kept] = program.arena_bytes
        for a, b in zip(tree.leaves(found[True]), tree.leaves(found[False]), strict=True):
            np.testing.assert_allclose(a, b, rtol=1e-11, atol=1e-14)
    assert arena[8, True] - arena[4, True] <= 4 * (rows.nbytes + 64)
    assert arena[8, False] - arena[4, False] >= 4 * 4 * rows.nbytes


def test_checkpoint_leaves_its_arguments_alone_to_the_backward_half() -> None:
    """What `tg.vjp` keeps between its two programs: the inputs of the layers, not what is inside of them."""
    rows = np.linspace(-1.0, 1.0, 256 * 16).reshape(256, 16)
    sizes = {}
    for kept in (True, False):
        loss, ws = chain(6, tg.checkpoint if kept else lambda f: f)
        graph = trace(lambda *a, loss=loss: loss(a[:-1], a[-1]), avals([*ws, rows])).graph
        halves = partition(joint(graph, range(7), seeds=[0]), 7, 1)
        sizes[kept] = sum(o.aval.nbytes for o in halves.forward.outputs[1:])
    weights = sum(w.nbytes for w in ws)
    assert sizes[True] <= weights + 7 * rows.nbytes
    assert sizes[False] >= weights + 6 * 3 * rows.nbytes


# --- memory, in a process of its own ------------------------------------------------------------------------------
PRELUDE = '''
import ctypes, os, resource, signal, threading
import numpy as np, tracegrad as tg
from tracegrad.errors import OutOfMemory

MIB = 1 << 20
X = np.linspace(0.1, 0.9, 1 << 15)  # a quarter of a MiB

def pages(column):
    getattr(ctypes.CDLL(None), "malloc_trim", abs)(0)  # what is free goes back to the operating system
    return int(open("/proc/self/statm").read().split()[column]) * os.sysconf("SC_PAGESIZE")

def growth(fn, *args):
    """Return by how many MiB the peak of memory in a call lies above what the process has before it."""
    before = pages(1)
    open("/proc/self/clear_refs", "w").write("5")  # the peak starts anew
    fn(*args)
    (peak,) = [line.split()[1] for line in open("/proc/self/status") if line.startswith("VmHWM")]
    return (int(peak) * 1024 - before) / MIB

def loop(n, x, **options):
    return tg.while_loop(lambda c: c[0] != n, lambda c: (c[0] + 1, np.sin(c[1]) + 0.1 * x), (0, x), **options)[1]

def gradient(**options):
    return tg.grad(lambda n, x: np.sum(loop(n, x, **options)), argnums=1)
'''


def alone(program: str) -> str:
    """Run a program in another process and return what it prints."""
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(p for p in sys.path if p), "TRACEGRAD_THREADS": "1"}
    command = [sys.executable, "-c", PRELUDE + program]
    done = subprocess.run(command, capture_output=True, text=True, env=environment, timeout=120, check=False)
    assert done.returncode == 0, done.stderr[-3000:]
    return done.stdout


@LINUX
def test_memory_grows_with_the_root_of_the_rounds() -> None:
    """1024 rounds over a carry of 0.25 MiB: 256 MiB with all carries, 2 sqrt(2 n) rows (and room to grow) without.

    Slots are in the arena since the first call.
    """
    alone("""
fixed, less, plain = gradient(slots=10), gradient(checkpoint=True), gradient()
fixed(3, X), less(3, X), plain(3, X)
for fn, low, high in ((fixed, 0, 4), (less, 10, 48), (plain, 240, 400)):
    assert low <= growth(fn, 1024, X) <= high, growth(fn, 1024, X)
""")


@LINUX
def test_a_gradient_that_exhausts_memory_says_so_and_gives_it_back() -> None:
    out = alone("""
plain, less, twice = gradient(), gradient(checkpoint=True), tg.grad(lambda n, x: np.sum(gradient()(n, x)), argnums=1)
small, second = plain(5, X), twice(5, X)
less(5, X)
size, resident = pages(0), pages(1)
resource.setrlimit(resource.RLIMIT_AS, (size + 96 * MIB, resource.RLIM_INFINITY))
for big in (lambda: plain(2000, X), lambda: twice(150, X), lambda: plain(2000, X)):
    try:
        big()
    except OutOfMemory as error:
        print(str(error).partition(": ")[2])
    assert pages(0) - size < 8 * MIB and pages(1) - resident < 8 * MIB, (pages(0) - size, pages(1) - resident)
np.testing.assert_array_equal(plain(5, X), small)
np.testing.assert_array_equal(twice(5, X), second)
assert np.isfinite(less(2000, X)).all()
""")
    message = "there is no memory left to keep the carries of every round for the gradient\n"
    message += "  fix: call it with checkpoint=True (about 3 sqrt(n) of n carries are kept) or slots=k (k of them)\n"
    assert out == 3 * message


@LINUX
def test_a_program_whose_values_do_not_fit_says_what_it_needs() -> None:
    out = alone("""
step = lambda c, _: (np.sin(c) + 0.1, None)
fn = tg.grad(lambda x: np.sum(tg.scan(step, x, None, length=1000)[0]))
less = tg.grad(lambda x: np.sum(tg.scan(step, x, None, length=1000, checkpoint=True)[0]))
less(X), fn(X[:9])
resource.setrlimit(resource.RLIMIT_AS, (pages(0) + 240 * MIB, resource.RLIM_INFINITY))
try:
    fn(X)
except OutOfMemory as error:
    print(error)
assert np.isfinite(less(X + 1.0)).all()
""")
    assert "the program needs 0.2 MiB for its results and 25" in out
    assert "fix: use smaller arrays; a gradient keeps less with tg.checkpoint, or scan(..., checkpoint=True)" in out


@LINUX
def test_ctrl_c_ends_a_loop_and_the_loops_around_it() -> None:
    """A number of rounds that is never met: only the signal ends these; the values afterwards are right."""
    alone("""
once = lambda n, x: loop(n, x)
rows = lambda n, x: tg.scan(lambda c, _: (loop(n, c), None), x, None, length=1000)[0]
deep = lambda n, x: tg.while_loop(lambda c: c[0] != n, lambda c: (c[0] + 1, loop(n, c[1])), (0, x))[1]
branch = lambda n, x: tg.cond(n < 0, lambda v: deep(n, v), lambda v: loop(n, v), x)
total = lambda fn: tg.grad(lambda n, x: np.sum(fn(n, x)), argnums=1)

gradients = total(once), total(deep), gradient(checkpoint=True), gradient(slots=2)
for fn in (tg.jit(once), tg.jit(rows), tg.jit(branch), *gradients):
    for x in (0.5, X):
        expected = fn(2, x)
        resident = pages(1)
        timer = threading.Timer(0.05, os.kill, (os.getpid(), signal.SIGINT))
        timer.start()
        try:
            fn(-1, x)
            raise SystemExit("the loop has ended")
        except KeyboardInterrupt:
            timer.join()
        assert pages(1) - resident < 8 * MIB, (pages(1) - resident) / MIB
        np.testing.assert_array_equal(fn(2, x), expected)
""")


def test_the_exception_of_a_signal_handler_comes_through() -> None:
    """As timeouts of test runners and of task queues raise theirs; called from native code, and from Python."""
    alone("""
def ring(*_):
    raise TimeoutError("it rings")

signal.signal(signal.SIGALRM, ring)
endless = tg.compile(loop, tg.spec((), np.int64), tg.spec(3))
long = tg.compile(lambda n, x: tg.scan(lambda c, _: (c + n, None), x, None, length=10**13)[0], 1, tg.spec(()))
for program, arguments in ((endless, [np.int64(-1), X[:3]]), (long, [np.int64(1), np.float64(0.5)])):
    executable = program._specialised.program.executable
    for call in (lambda: program(*arguments), lambda: executable.run([np.array(a) for a in arguments])):
        signal.setitimer(signal.ITIMER_REAL, 0.05)
        try:
            call()
            raise SystemExit("the loop has ended")
        except TimeoutError as error:
            assert str(error) == "it rings"
    assert len(executable.arenas) == 1
""")
