"""Convolution kernels against NumPy in float64: every path, 1 to 3 axes, odd sizes, every tile, NaN and inf."""

from __future__ import annotations

import itertools
import os
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.library_machine import FLOATS as DTYPES
from tests.library_machine import run
from tracegrad.codegen.plan_conv import plan_conv

EXAMPLES = int(os.environ.get("RANDOM_CONVOLUTIONS", "300"))
REPEATABLE = "RANDOM_CONVOLUTIONS" not in os.environ or "ALL_CPUS" in os.environ
KINDS = ("forward", "data", "weight")
WINOGRAD = ("winograd 2x2", "winograd 4x4")
EPSILON = {"float32": 1.2e-7, "float64": 2.3e-16}


@dataclass(frozen=True)
class Case:
    """A convolution of x [n, c, *size] by w [o, c / groups, *kernel]."""

    n: int
    c: int
    size: tuple[int, ...]
    o: int
    kernel: tuple[int, ...]
    stride: tuple[int, ...]
    padding: tuple[tuple[int, int], ...]
    dilation: tuple[int, ...]
    groups: int = 1

    @property
    def out(self) -> tuple[int, ...]:
        axes = zip(self.size, self.kernel, self.stride, self.padding, self.dilation, strict=True)
        return tuple((n + a + b - d * (k - 1) - 1) // s + 1 for n, k, s, (a, b), d in axes)

    @property
    def x(self) -> tuple[int, ...]:
        return (self.n, self.c, *self.size)

    @property
    def w(self) -> tuple[int, ...]:
        return (self.o, self.c // self.groups, *self.kernel)

    @property
    def y(self) -> tuple[int, ...]:
        return (self.n, self.o, *self.out)

    def shapes(self, kind: str) -> tuple[tuple[int, ...], ...]:
        """Return the shapes of both operands and of the result."""
        return {
            "forward": (self.x, self.w, self.y),
            "data": (self.y, self.w, self.x),
            "weight": (self.x, self.y, self.w),
        }[kind]


def reference(kind: str, case: Case, first: Any, second: Any) -> Any:
    """Compute a convolution, or one of its gradients, in float64, tap by tap, on an x that is padded in memory."""
    widths = [(0, 0), (0, 0), *case.padding]
    inner = tuple(slice(a, a + n) for n, (a, _) in zip(case.x, widths, strict=True))
    padded = np.zeros([n + a + b for n, (a, b) in zip(case.x, widths, strict=True)])
    if kind != "data":
        padded[inner] = first
    result = {"forward": np.zeros(case.y), "data": padded, "weight": np.zeros(case.w)}[kind]
    maps, channels = case.o // case.groups, case.w[1]
    first, second = first.astype(np.float64), second.astype(np.float64)
    for g, tap in itertools.product(range(case.groups), itertools.product(*map(range, case.kernel))):
        o, c = slice(g * maps, (g + 1) * maps), slice(g * channels, (g + 1) * channels)
        axes = zip(tap, case.out, case.stride, case.dilation, strict=True)
        window = (slice(None), c, *(slice(t * d, t * d + (m - 1) * s + 1, s) for t, m, s, d in axes))
        if kind == "forward":
            result[:, o] += np.einsum("nc...,oc->no...", padded[window], second[o, :, *tap])
        elif kind == "data":
            result[window] += np.einsum("no...,oc->nc...", first[:, o], second[o, :, *tap])
        else:
            over = tuple(range(2, first.ndim))
            products = padded[window][:, None] * second[:, o][:, :, None]
            result[o, :, *tap] += products.sum(axis=(0, *(a + 1 for a in over)))
    return result[inner] if kind == "data" else result


def check(
    kind: str,
    dtype: str,
    case: Case,
    threads: int,
    seed: int,
    special: int = 0,
    side: str = "end",
    path: str = "",
    factor: float = 1.0,
    spoil: Callable[..., None] | None = None,
) -> None:
    """Run a plan on guarded memory and compare it.

    special: how many elements of an operand are NaN or inf.  factor: of the first operand.  path: as in `plan_conv`.
    spoil: changes both operands.
    """
    if min(case.out) < 1:
        return
    rng = np.random.default_rng(seed)
    shapes = case.shapes(kind)
    inputs = [rng.standard_normal(shape).astype(dtype) for shape in shapes[:2]]
    inputs[0] *= np.dtype(dtype).type(factor)
    if special:
        target = inputs[int(rng.integers(2))].reshape(-1)
        if target.size:
            target[rng.integers(target.size, size=special)] = rng.choice([np.nan, np.inf, -np.inf], special)
    if spoil:
        spoil(*inputs)
    axes = case.stride, case.padding, case.dilation
    call = plan_conv(kind, dtype, case.x, case.w, *axes, case.groups, threads, path=path)
    result = run(call, inputs, np.zeros(shapes[2], dtype), threads, side)
    with np.errstate(invalid="ignore", over="ignore"):
        expected = reference(kind, case, *inputs)
    finite = np.isfinite(expected)
    scale = max(1.0, np.abs(expected[finite]).max(initial=0.0))
    np.testing.assert_allclose(result, expected, rtol=0, atol=EPSILON[dtype] * 300 * scale, err_msg=call.why)


CHANNELS = st.sampled_from([1, 2, 3, 5, 8, 14, 15, 16, 17, 31, 33, 40])
EXTENTS = {
    1: st.sampled_from([1, 2, 7, 16, 33, 50, 130, 300, 700]),
    2: st.sampled_from([1, 2, 3, 7, 8, 15, 16, 20, 33, 50]),
    3: st.sampled_from([1, 2, 3, 4, 5, 8, 9, 17]),
}
PADS = st.tuples(st.integers(0, 3), st.integers(0, 3))
SMALL = st.sampled_from([1, 1, 2, 3])
KERNELS = {1: st.sampled_from([1, 2, 3, 5, 9]), 2: st.sampled_from([1, 2, 3, 5]), 3: st.sampled_from([1, 2, 3])}


@st.composite
def cases(draw: Any) -> Case:
    axes = draw(st.sampled_from([1, 2, 2, 3, 3]))

    def each(strategy: Any) -> tuple[Any, ...]:
        return draw(st.tuples(*[strategy] * axes))

    groups, depthwise = draw(st.sampled_from([1, 1, 1, 2, 3, 17])), draw(st.integers(0, 3)) == 0
    c, o = (1, draw(st.integers(1, 2))) if depthwise or groups > 3 else (draw(CHANNELS), draw(CHANNELS))
    return Case(
        draw(st.sampled_from([0, 1, 1, 2, 3])), c * groups, each(EXTENTS[axes]), o * groups, each(KERNELS[axes]),
        each(SMALL), each(PADS), each(SMALL), groups,
    )  # fmt: skip


@settings(max_examples=EXAMPLES, deadline=None, derandomize=REPEATABLE, database=None)
@given(
    st.sampled_from(KINDS), st.sampled_from(DTYPES), cases(), st.sampled_from([1, 2]),
    st.integers(0, 2**32 - 1), st.sampled_from([0, 0, 0, 1, 3]), st.sampled_from(["start", "end"]),
)  # fmt: skip
def test_convolutions(kind, dtype, case, threads, seed, special, side):
    check(kind, dtype, case, threads, seed, special=special, side=side)


@st.composite
def winograd_cases(draw: Any) -> tuple[str, Case]:
    """3 x 3 taps, one by one; also with more padding than a tap reaches, and maps of parts of a tile."""
    kind = draw(st.sampled_from(KINDS))
    extent = st.sampled_from([1, 2, 3, 4, 5, 7, 8, 9, 14, 16, 17, 33, 60])
    channels = st.sampled_from([1, 2, 3, 7, 8, 9, 15, 16, 17, 24, 33, 40])
    size, pads = draw(st.tuples(extent, extent)), draw(st.tuples(PADS, PADS))
    images, groups = draw(st.sampled_from([1, 1, 2, 3, 9])), draw(st.sampled_from([1, 1, 2, 3]))
    if kind == "weight":  # no path for groups
        groups = 1
    c, o = draw(channels) * groups, draw(channels) * groups
    return kind, Case(images, c, size, o, (3, 3), (1, 1), pads, (1, 1), groups)


@settings(max_examples=EXAMPLES, deadline=None, derandomize=REPEATABLE, database=None)
@given(
    st.sampled_from(WINOGRAD), st.sampled_from(DTYPES), winograd_cases(),
    st.sampled_from([1, 2]), st.integers(0, 2**32 - 1), st.sampled_from([0, 0, 0, 1, 3]),
    st.sampled_from(["start", "end"]),
)  # fmt: skip
def test_convolutions_by_winograd(path, dtype, case, threads, seed, special, side):
    kind, case = case
    check(kind, dtype, case, threads, seed, special=special, side=side, path=path)


@st.composite
def plane_cases(draw: Any) -> Case:
    """Groups of one channel, one or two axes: many small planes, copied several at a time, or a few larger ones."""
    axes, is_small = draw(st.sampled_from([1, 2, 2, 2])), draw(st.booleans())
    extent = st.sampled_from([1, 2, 3, 4, 6, 7, 8, 9]) if is_small else st.sampled_from([9, 13, 14, 15, 16, 17, 28, 35])

    def each(strategy: Any) -> tuple[Any, ...]:
        return draw(st.tuples(*[strategy] * axes))

    images = draw(st.sampled_from([1, 4, 7, 32, 65])) if is_small else draw(st.integers(1, 3))
    groups, kernel = draw(st.sampled_from([2, 3, 9])), each(st.sampled_from([1, 2, 3, 3, 4, 5, 7, 9]))
    outputs = groups * draw(st.sampled_from([1, 1, 1, 2]))
    return Case(images, groups, each(extent), outputs, kernel, each(SMALL), each(PADS), each(SMALL), groups)


@settings(max_examples=EXAMPLES, deadline=None, derandomize=REPEATABLE, database=None)
@given(
    st.sampled_from(KINDS), st.sampled_from(DTYPES), plane_cases(), st.sampled_from([1, 2]),
    st.integers(0, 2**32 - 1), st.sampled_from([0, 0, 0, 1, 3]), st.sampled_from(["start", "end"]),
)  # fmt: skip
def test_convolutions_plane_by_plane(kind, dtype, case, threads, seed, special, side):
    check(kind, dtype, case, threads, seed, special=special, side=side)


GROUP_PATHS = [("weight", "dots"), ("weight", "tile"), ("weight", "direct"), ("forward", "tile"), ("data", "tile")]


@st.composite
def group_cases(draw: Any) -> Case:
    """Groups of few channels: odd ends of every thin tile, small images several at a time, cut rows."""
    axes = draw(st.sampled_from([1, 2, 2, 2, 3]))

    def each(strategy: Any) -> tuple[Any, ...]:
        return draw(st.tuples(*[strategy] * axes))

    groups, few = draw(st.sampled_from([2, 3, 8])), st.sampled_from([1, 2, 3, 4, 5, 6, 7, 8, 9, 12, 17])
    images, kernel = draw(st.sampled_from([1, 2, 3, 17])), each(KERNELS[axes])
    c, o = groups * draw(few), groups * draw(few)
    return Case(images, c, each(EXTENTS[axes]), o, kernel, each(SMALL), each(PADS), each(SMALL), groups)


@settings(max_examples=EXAMPLES, deadline=None, derandomize=REPEATABLE, database=None)
@given(
    st.sampled_from(GROUP_PATHS), st.sampled_from(DTYPES), group_cases(), st.sampled_from([1, 2]),
    st.integers(0, 2**32 - 1), st.sampled_from([0, 0, 0, 1, 3]), st.sampled_from(["start", "end"]),
)  # fmt: skip
def test_convolutions_in_groups(path, dtype, case, threads, seed, special, side):
    kind, path = path
    check(kind, dtype, case, threads, seed, special=special, side=side, path=path)


@st.composite
def tap_cases(draw: Any) -> Case:
    """Wide padding and dilation: taps that meet little of the input, or nothing; strips over rows and images."""
    axes = draw(st.sampled_from([1, 2, 2, 2, 3]))

    def each(strategy: Any) -> tuple[Any, ...]:
        return draw(st.tuples(*[strategy] * axes))

    extent = {1: EXTENTS[1], 2: st.sampled_from([1, 2, 3, 7, 8, 14, 16, 20]), 3: EXTENTS[3]}[axes]
    pads, dilation = st.tuples(st.integers(0, 6), st.integers(0, 6)), st.sampled_from([1, 1, 2, 3, 6])
    c, o = draw(st.sampled_from([1, 2, 5, 6, 8, 13, 33, 260])), draw(st.sampled_from([1, 2, 5, 6, 7, 12, 31, 50]))
    images, kernel = draw(st.sampled_from([1, 1, 2, 3, 5])), each(KERNELS[axes])
    return Case(images, c, each(extent), o, kernel, each(SMALL), each(pads), each(dilation))


@settings(max_examples=EXAMPLES, deadline=None, derandomize=REPEATABLE, database=None)
@given(
    st.sampled_from(["forward", "data"]), st.sampled_from(DTYPES), tap_cases(), st.sampled_from([1, 2]),
    st.integers(0, 2**32 - 1), st.sampled_from([0, 0, 0, 1, 3]), st.sampled_from(["start", "end"]),
)  # fmt: skip
def test_convolutions_tap_by_tap(kind, dtype, case, threads, seed, special, side):
    check(kind, dtype, case, threads, seed, special=special, side=side, path="taps")


@settings(max_examples=EXAMPLES, deadline=None, derandomize=REPEATABLE, database=None)
@given(
    st.sampled_from(DTYPES), st.one_of(cases(), tap_cases()).filter(lambda case: case.groups == 1 and case.n > 0),
    st.sampled_from([1, 2]), st.integers(0, 2**32 - 1), st.sampled_from([0, 0, 0, 1, 3]),
    st.sampled_from(["start", "end"]),
)  # fmt: skip
def test_convolutions_by_patches(dtype, case, threads, seed, special, side):
    check("weight", dtype, case, threads, seed, special=special, side=side, path="patches")


LARGE = {
    "rows are cut": Case(1, 40, (70, 90), 33, (3, 3), (1, 1), ((1, 1), (1, 1)), (1, 1)),
    "columns are cut": Case(1, 16, (5, 900), 17, (3, 3), (1, 1), ((0, 2), (1, 1)), (1, 1)),
    "many images": Case(40, 24, (7, 7), 20, (3, 3), (1, 1), ((1, 1), (1, 1)), (1, 1)),
    "many maps": Case(2, 72, (6, 5), 200, (3, 3), (1, 1), ((1, 1), (2, 0)), (1, 1)),
}


GROUPED = {
    "groups, rows are cut": Case(1, 32, (50, 60), 34, (3, 3), (1, 1), ((1, 1), (1, 1)), (1, 1), 2),
    "groups, several images": Case(9, 60, (7, 7), 51, (3, 3), (1, 1), ((1, 1), (0, 2)), (1, 1), 3),
}


@pytest.mark.parametrize("kind", ["forward", "data"])
@pytest.mark.parametrize("name", GROUPED)
def test_groups_by_winograd(kind, name):
    for path, dtype in itertools.product(WINOGRAD, DTYPES):
        check(kind, dtype, GROUPED[name], 2, seed=4, path=path)
    for path, spoil in itertools.product(WINOGRAD, SPOILED.values()):
        check(kind, "float32", GROUPED[name], 2, seed=6, path=path, spoil=spoil, side="start")


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("name", LARGE)
def test_large_convolutions_by_winograd(kind, name):
    for path, dtype in itertools.product(WINOGRAD, DTYPES):
        check(kind, dtype, LARGE[name], 2, seed=4, path=path)
        check(kind, dtype, LARGE[name], 2, seed=4, path=path, special=2, side="start")


def every(value: float) -> Callable[..., None]:
    """Return what makes some elements of the first operand, and all of its second channel, a value."""

    def spoil(first: Any, second: Any) -> None:
        first[:, 1] = value
        first.flat[::13] = value

    return spoil


def all_nan(first: Any, second: Any) -> None:
    first[...] = second[...] = np.nan


def one_image(first: Any, second: Any) -> None:
    """The middle of the first image is NaN, its edges are not."""
    first[0, :, 1:-1, 1:-1] = np.nan


def edges(first: Any, second: Any) -> None:
    """Only the edges of the images are inf, and of the taps some that meet what is around them."""
    first[:, 0, 0] = np.inf
    second[0, 0, 0, 0] = second[-1, -1, -1, -1] = np.inf


def few_weights(first: Any, second: Any) -> None:
    """One map has a tap that is NaN, another one of each sign of inf."""
    second[0, 0, 0, 2] = np.nan
    second[-1, -1, 2, 0], second[-1, 0, 1, 1] = np.inf, -np.inf


SPOILED = {
    "all": all_nan, "nan": every(np.nan), "inf": every(np.inf), "one image": one_image, "edges": edges,
    "weights": few_weights,
}  # fmt: skip


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("name", SPOILED)
def test_convolutions_that_are_not_finite(name, kind):
    """What Winograd's tiles spread is computed again, with tiles or weights first, whole maps and parts of them."""
    few_channels = Case(3, 12, (9, 10), 20, (3, 3), (1, 1), ((1, 1), (1, 1)), (1, 1))
    for case, path in itertools.product([few_channels, *LARGE.values()], WINOGRAD):
        check(kind, "float32", case, 2, seed=6, path=path, spoil=SPOILED[name])
    for case, path in itertools.product([few_channels, LARGE["many maps"]] if "float64" in DTYPES else [], WINOGRAD):
        check(kind, "float64", case, 2, seed=7, path=path, spoil=SPOILED[name], side="start")


@pytest.mark.parametrize("kind", KINDS)
def test_overflow_in_transforms_leaves_no_trace_in_convolutions(kind):
    """Sums of neighbours overflow in the transforms, where no direct sum does."""
    case = Case(2, 5, (9, 10), 6, (3, 3), (1, 1), ((1, 1), (1, 1)), (1, 1))
    for path in WINOGRAD:
        check(kind, "float32", case, 2, seed=5, path=path, factor=3e36 if kind == "weight" else 1e37)


BY_HAND = {
    "image": Case(2, 3, (32, 32), 32, (3, 3), (1, 1), ((1, 1), (1, 1)), (1, 1)),
    "signal": Case(1, 64, (500,), 64, (5,), (1,), ((2, 2),), (1,)),
    "rows are cut": Case(1, 64, (5000,), 40, (7,), (2,), ((3, 3),), (2,)),
    "wide padding": Case(1, 70, (900,), 3, (4,), (1,), ((200, 1),), (1,)),
    "cut and strided": Case(1, 3, (2, 700), 40, (2, 3), (1, 3), ((1, 0), (0, 2)), (1, 1)),
    "depthwise": Case(2, 16, (28, 28), 16, (3, 3), (1, 1), ((1, 1), (1, 1)), (1, 1), 16),
    "small planes": Case(3, 40, (7, 7), 40, (3, 3), (1, 1), ((1, 1), (1, 1)), (1, 1), 40),
    "small planes with stride": Case(5, 11, (7, 6), 22, (3, 3), (2, 2), ((1, 1), (1, 1)), (1, 1), 11),
    "a last batch of fewer planes": Case(32, 3, (7, 7), 3, (3, 3), (1, 1), ((1, 1), (1, 1)), (1, 1), 3),
    "tiny planes with phases of rows": Case(40, 3, (4, 3), 3, (3, 2), (2, 1), ((1, 0), (0, 1)), (1, 1), 3),
    "groups of few channels": Case(3, 24, (28, 28), 24, (3, 3), (1, 1), ((1, 1), (1, 1)), (1, 1), 6),
    "groups with phases": Case(3, 24, (15, 14), 32, (3, 3), (2, 2), ((1, 1), (1, 1)), (1, 1), 4),
    "groups, several small images": Case(11, 24, (7, 7), 30, (3, 3), (1, 1), ((1, 1), (1, 1)), (1, 1), 6),
    "groups, chunks of rows": Case(2, 6, (70, 90), 10, (3, 3), (1, 1), ((1, 1), (1, 1)), (1, 1), 2),
    "groups, parts of rows": Case(1, 6, (4001,), 10, (9,), (1,), ((4, 4),), (1,), 2),
    "pointwise groups": Case(3, 24, (7, 9), 36, (1, 1), (1, 1), ((0, 0), (0, 0)), (1, 1), 3),
    "3-d pointwise groups": Case(3, 12, (3, 7, 9), 8, (1, 1, 1), (1, 1, 1), ((0, 0),) * 3, (1, 1, 1), 4),
    "3-d depthwise": Case(2, 16, (5, 9, 11), 16, (3, 3, 3), (1, 1, 1), ((1, 1),) * 3, (1, 1, 1), 16),
    "stride over kernel": Case(1, 3, (9, 9), 4, (2, 2), (5, 5), ((0, 0), (0, 0)), (1, 1)),
    "3-d stride over kernel": Case(1, 3, (9, 7, 6), 4, (2, 1, 2), (5, 3, 4), ((0, 0),) * 3, (1, 1, 1)),
    "kernel over input": Case(1, 3, (3, 3), 4, (7, 7), (1, 1), ((2, 2), (2, 3)), (1, 1)),
    "wide dilation": Case(1, 64, (28, 28), 40, (3, 3), (1, 1), ((16, 16), (16, 16)), (16, 16)),
    "wide dilation, odd": Case(2, 90, (45, 33), 30, (2, 3), (1, 2), ((20, 3), (1, 9)), (30, 5)),
    "wide dilation, groups": Case(1, 120, (33, 33), 90, (3, 1), (1, 1), ((12, 12), (0, 0)), (12, 1), 2),
    "padding wider than a vector": Case(1, 3, (40, 3), 4, (3, 3), (1, 1), ((0, 0), (40, 40)), (1, 1)),
    "product": Case(3, 24, (14, 14), 40, (1, 1), (1, 1), ((0, 0), (0, 0)), (1, 1)),
    "3-d product": Case(3, 24, (3, 7, 14), 40, (1, 1, 1), (1, 1, 1), ((0, 0),) * 3, (1, 1, 1)),
    "product of several images": Case(7, 50, (3, 3), 40, (1, 1), (1, 1), ((0, 0), (0, 0)), (1, 1)),
    "product of one small image": Case(1, 24, (7, 7), 40, (1, 1), (1, 1), ((0, 0), (0, 0)), (1, 1)),
    "product of one image, few maps": Case(1, 24, (13, 17), 3, (1, 1), (1, 1), ((0, 0), (0, 0)), (1, 1)),
    "product of one image, few channels": Case(1, 2, (13, 17), 24, (1, 1), (1, 1), ((0, 0), (0, 0)), (1, 1)),
    "product of points": Case(9, 24, (1, 1), 40, (1, 1), (1, 1), ((0, 0), (0, 0)), (1, 1)),
    "product of one point": Case(1, 24, (1, 1), 40, (1, 1), (1, 1), ((0, 0), (0, 0)), (1, 1)),
    "product of parts of a plane": Case(2, 9, (20, 30), 24, (1, 1), (1, 1), ((0, 0), (0, 0)), (1, 1)),
    "stride is kernel": Case(2, 19, (24, 38), 40, (2, 2), (2, 2), ((0, 0), (0, 0)), (1, 1)),
    "stride is kernel, one column more": Case(1, 7, (9, 33), 5, (2, 2), (2, 2), ((0, 0), (0, 0)), (1, 1), 1),
    "phases in chunks of rows": Case(1, 40, (81, 90), 33, (3, 3), (2, 2), ((1, 1), (1, 1)), (1, 1)),
    "phases in parts of rows": Case(1, 20, (3, 1601), 17, (3, 3), (2, 2), ((0, 2), (1, 1)), (1, 1)),
    "phases of rows alone": Case(2, 9, (30, 17), 8, (3, 3), (2, 1), ((1, 1), (1, 1)), (1, 1)),
    "phases of columns alone": Case(2, 9, (17, 30), 8, (3, 3), (1, 2), ((1, 1), (1, 1)), (1, 1)),
    "three phases": Case(2, 9, (20, 50), 8, (5, 4), (3, 3), ((2, 2), (1, 2)), (1, 1)),
    "phases of all axes": Case(2, 5, (7, 10, 37), 8, (3, 2, 3), (2, 2, 2), ((1, 1),) * 3, (1, 1, 1)),
    "fewer columns than phases": Case(2, 5, (9, 2), 8, (3, 3), (2, 4), ((1, 1), (1, 1)), (1, 1)),
    "few channels": Case(1, 3, (45, 46), 20, (7, 7), (2, 2), ((3, 3), (3, 3)), (1, 1)),
    "1x1 with stride": Case(3, 24, (14, 14), 40, (1, 1), (2, 2), ((0, 0), (0, 0)), (1, 1)),
    "blocks of k": Case(2, 130, (12, 12), 70, (3, 3), (2, 2), ((1, 1), (1, 1)), (2, 2), 2),
    "3-d blocks of k": Case(1, 33, (5, 9, 9), 15, (3, 3, 3), (1, 2, 1), ((1, 1),) * 3, (1, 1, 1)),
    "rows of whole tiles": Case(2, 3, (64, 33), 20, (3, 3), (2, 1), ((1, 1), (1, 0)), (1, 1)),
    "rows of whole vectors": Case(2, 3, (13, 24), 9, (3, 3), (1, 1), ((1, 1), (1, 1)), (1, 1)),
    "rows of whole tiles in blocks of k": Case(1, 40, (12, 64), 17, (3, 3), (1, 2), ((1, 1), (1, 1)), (1, 1)),
    "chunks of rows": Case(1, 2, (200, 200), 3, (3, 3), (1, 1), ((1, 1), (1, 1)), (1, 1)),
    "3-d chunks of rows": Case(1, 8, (4, 120, 90), 9, (3, 3, 3), (1, 1, 1), ((1, 1),) * 3, (1, 1, 1)),
    "product of long rows": Case(1, 9, (9604,), 70, (1,), (1,), ((0, 0),), (1,)),
    "chunks cut for less scratch": Case(
        2, 2, (9, 21, 9), 326, (3, 11, 3), (1, 2, 1), ((0, 0), (0, 1), (1, 8)), (4, 2, 4), 2
    ),
    "too much scratch on the tile": Case(1, 14, (34, 120), 422, (3, 3), (2, 1), ((1, 0), (0, 32)), (16, 16), 2),
    "tap by tap": Case(2, 260, (5, 6), 270, (3, 3), (1, 1), ((2, 2), (2, 2)), (2, 2)),
    "tap by tap, strided": Case(3, 300, (8, 9), 40, (4, 4), (2, 2), ((1, 1), (1, 1)), (1, 1)),
    "patches of several images": Case(9, 40, (7, 7), 60, (3, 3), (2, 2), ((1, 1), (1, 1)), (1, 1)),
    "patches, rows are cut": Case(1, 40, (40, 33), 60, (5, 2), (1, 1), ((4, 4), (0, 3)), (2, 3)),
    "one window": Case(5, 24, (4, 7), 40, (4, 7), (1, 3), ((0, 0), (0, 0)), (1, 1)),
    "one window of one image": Case(1, 9, (3, 5, 2), 40, (3, 5, 2), (1, 1, 1), ((0, 0),) * 3, (1, 1, 1)),
    "one window of one row": Case(3, 7, (1, 5), 4, (1, 5), (1, 1), ((0, 0), (0, 0)), (4, 1)),
    "no image": Case(0, 3, (4, 5, 6), 2, (3, 3, 3), (1, 1, 1), ((1, 1),) * 3, (1, 1, 1)),
    "no channel": Case(2, 0, (4, 5, 6), 2, (3, 3, 3), (1, 1, 1), ((1, 1),) * 3, (1, 1, 1)),
    "nothing but padding": Case(2, 3, (0, 5, 6), 2, (2, 2, 2), (1, 1, 1), ((1, 1),) * 3, (1, 1, 1)),
    "window in the padding": Case(2, 6, (4, 3), 6, (2, 2), (1, 1), ((3, 3), (2, 0)), (1, 1), 6),
    "taps on both sides": Case(2, 6, (1, 3), 6, (2, 2), (1, 1), ((1, 2), (0, 0)), (3, 1), 6),
}


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("name", BY_HAND)
def test_convolutions_by_hand(kind, name):
    for dtype in DTYPES:
        check(kind, dtype, BY_HAND[name], 2, seed=3)
        check(kind, dtype, BY_HAND[name], 2, seed=3, special=2, side="start")
