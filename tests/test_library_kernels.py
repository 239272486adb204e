"""Library kernels against NumPy in float64: every planner, odd sizes, every tile, guarded memory."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.library_machine import run
from tracegrad.codegen import library
from tracegrad.codegen.plan_conv import plan_conv
from tracegrad.codegen.plan_gemm import plan_gemm
from tracegrad.codegen.plan_sort import plan_cumsum, plan_sort
from tracegrad.runtime.objects import read_symbols

FLOATS = ("float32", "float64")
EPSILON = {"float32": 1.2e-7, "float64": 2.3e-16, "int32": 0.0, "int64": 0.0}
SIZES = st.sampled_from([0, 1, 2, 3, 5, 13, 14, 15, 16, 17, 29, 31, 32, 33, 64, 65, 130, 300])
LAYOUTS = st.sampled_from(["plain", "transposed", "strided"])
THREADS = st.sampled_from([1, 2])
SEEDS = st.integers(0, 2**32 - 1)
check = settings(max_examples=120, deadline=None)


def draw_matrix(rng, dtype, batch, rows, columns, layout):
    """Return the memory of a batch of matrices, and the matrices as a view of it."""
    shape = {"plain": (rows, columns), "transposed": (columns, rows), "strided": (rows, 2 * columns)}[layout]
    if dtype in FLOATS:
        memory = rng.standard_normal((batch, *shape)).astype(dtype)
    else:
        memory = rng.integers(-1000, 1000, (batch, *shape)).astype(dtype)
    view = {"plain": memory, "transposed": memory.swapaxes(1, 2), "strided": memory[:, :, ::2]}[layout]
    return memory, view


def element_strides(view, is_batched):
    batch, row, column = (stride // view.itemsize for stride in view.strides)
    return (batch if is_batched else 0, row, column)


def assert_product(
    dtype, m, n, k, batch, threads, seed, layouts=("plain", "plain"), broadcast=(False, False), isa=None
):
    rng = np.random.default_rng(seed)
    a_memory, a = draw_matrix(rng, dtype, 1 if broadcast[0] else batch, m, k, layouts[0])
    b_memory, b = draw_matrix(rng, dtype, 1 if broadcast[1] else batch, k, n, layouts[1])
    gap = 3  # columns of C that belong to someone else
    c = np.full((batch, m, n + gap), 7, dtype)
    call = plan_gemm(
        dtype, m, n, k, element_strides(a, not broadcast[0]), element_strides(b, not broadcast[1]),
        (m * (n + gap), n + gap, 1), batch, threads, isa=isa,
    )  # fmt: skip
    result = run(call, [a_memory, b_memory], c, threads, isa)
    wide = np.float64 if dtype in FLOATS else dtype
    expected = a.astype(wide) @ b.astype(wide)
    bound = EPSILON[dtype] * np.sqrt(k + 1) * 40
    np.testing.assert_allclose(result[:, :, :n], np.broadcast_to(expected, (batch, m, n)), rtol=0, atol=bound)
    assert (result[:, :, n:] == 7).all()


@check
@given(
    st.sampled_from(["float32", "float64", "int32", "int64"]), SIZES, SIZES, SIZES, st.sampled_from([0, 1, 1, 2, 5]),
    THREADS, SEEDS, st.tuples(LAYOUTS, LAYOUTS), st.tuples(st.booleans(), st.booleans()),
)  # fmt: skip
def test_products_of_any_layout(dtype, m, n, k, batch, threads, seed, layouts, broadcast):
    assert_product(dtype, m, n, k, batch, threads, seed, layouts, broadcast)


@settings(max_examples=40, deadline=None)
@given(SIZES, SIZES, SIZES, st.tuples(LAYOUTS, LAYOUTS), SEEDS, st.sampled_from(["avx2", "generic", "neon"]))
def test_products_on_other_tiles(m, n, k, layouts, seed, isa):
    assert_product("float32", m, n, k, 1, 2, seed, layouts, isa=isa)


@pytest.mark.parametrize("dtype", FLOATS)
@pytest.mark.parametrize(
    "m, n, k",
    [(3, 5, 9000), (20, 20, 4000), (1, 1, 100_000), (1, 3000, 70), (3000, 1, 70), (700, 1100, 300), (1200, 40, 600)],
)
@pytest.mark.parametrize("threads", [1, 2])
def test_products_that_are_cut(dtype, m, n, k, threads):
    assert_product(dtype, m, n, k, 1, threads, seed=1)


def test_nan_and_inf_reach_their_row_only():
    a = np.ones((20, 9), np.float32)
    a[3, 4], a[7, 2] = np.nan, np.inf
    b = np.ones((9, 40), np.float32)
    call = plan_gemm("float32", 20, 40, 9, (0, 9, 1), (0, 40, 1), (0, 40, 1), 1, 1)
    result = run(call, [a, b], np.zeros((20, 40), np.float32), 1)
    np.testing.assert_array_equal(result, a @ b)


def reference_conv(kind, first, second, shapes, stride, padding, dilation, groups):
    """Compute a convolution, or one of its gradients, in float64, tap by tap."""
    x_shape, w_shape, y_shape = shapes
    (top, bottom), (left, right) = padding
    height, width = x_shape[2] + top + bottom, x_shape[3] + left + right
    inner = (slice(None), slice(None), slice(top, top + x_shape[2]), slice(left, left + x_shape[3]))
    padded = np.zeros((*x_shape[:2], height, width))
    if kind != "data":
        padded[inner] = first
    result = {"forward": np.zeros(y_shape), "data": padded, "weight": np.zeros(w_shape)}[kind]
    maps, channels = w_shape[0] // groups, w_shape[1]
    for g in range(groups):
        o, c = slice(g * maps, (g + 1) * maps), slice(g * channels, (g + 1) * channels)
        for r in range(w_shape[2]):
            for s in range(w_shape[3]):
                rows = slice(r * dilation[0], r * dilation[0] + (y_shape[2] - 1) * stride[0] + 1, stride[0])
                columns = slice(s * dilation[1], s * dilation[1] + (y_shape[3] - 1) * stride[1] + 1, stride[1])
                window = (slice(None), c, rows, columns)
                if kind == "forward":
                    result[:, o] += np.einsum("nchw,oc->nohw", padded[window], second[o, :, r, s])
                elif kind == "data":
                    result[window] += np.einsum("nohw,oc->nchw", first[:, o], second[o, :, r, s])
                else:
                    result[o, :, r, s] += np.einsum("nchw,nohw->oc", padded[window], second[:, o])
    return result[inner] if kind == "data" else result


def conv_operands(kind, rng, dtype, shapes):
    """Return the inputs of a kind, as float of some dtype, and the shape of its result."""
    x, w, y = (rng.standard_normal(shape).astype(dtype) for shape in shapes)
    match kind:
        case "forward":
            return [x, w], shapes[2]
        case "data":
            return [y, w], shapes[0]
        case _:
            return [x, y], shapes[1]


def assert_conv(kind, dtype, n, c, h, w, o, kernel, stride, padding, dilation, groups, threads, seed, isa=None):
    out_h = (h + sum(padding[0]) - dilation[0] * (kernel[0] - 1) - 1) // stride[0] + 1
    out_w = (w + sum(padding[1]) - dilation[1] * (kernel[1] - 1) - 1) // stride[1] + 1
    if out_h < 1 or out_w < 1:
        return
    shapes = (n, c, h, w), (o, c // groups, *kernel), (n, o, out_h, out_w)
    inputs, result_shape = conv_operands(kind, np.random.default_rng(seed), dtype, shapes)
    call = plan_conv(kind, dtype, n, c, h, w, o, *kernel, stride, padding, dilation, groups, threads, isa=isa)
    result = run(call, inputs, np.zeros(result_shape, dtype), threads, isa)
    expected = reference_conv(kind, *inputs, shapes, stride, padding, dilation, groups)
    scale = max(1.0, np.abs(expected).max(initial=0.0))
    np.testing.assert_allclose(result, expected, rtol=0, atol=EPSILON[dtype] * 300 * scale)


CHANNELS = st.sampled_from([1, 2, 3, 5, 8, 14, 15, 16, 17, 31, 33, 40])
EXTENTS = st.sampled_from([1, 2, 3, 7, 8, 15, 16, 20, 33, 50])
PADS = st.tuples(st.integers(0, 3), st.integers(0, 3))
SMALL = st.sampled_from([1, 1, 2, 3])
KERNELS = st.sampled_from([1, 2, 3, 5])
KINDS = st.sampled_from(["forward", "data", "weight"])


@settings(max_examples=300, deadline=None)
@given(
    KINDS, st.sampled_from(["float32", "float32", "float64"]), st.sampled_from([0, 1, 1, 2, 3]), CHANNELS, EXTENTS,
    EXTENTS, CHANNELS, st.tuples(KERNELS, KERNELS), st.tuples(SMALL, SMALL), st.tuples(PADS, PADS),
    st.tuples(SMALL, SMALL), st.sampled_from([1, 1, 1, 2, 3]), THREADS, SEEDS,
)  # fmt: skip
def test_convolutions(kind, dtype, n, c, h, w, o, kernel, stride, padding, dilation, groups, threads, seed):
    assert_conv(
        kind, dtype, n, c * groups, h, w, o * groups, kernel, stride, padding, dilation, groups, threads, seed
    )  # fmt: skip


@settings(max_examples=40, deadline=None)
@given(KINDS, CHANNELS, EXTENTS, EXTENTS, CHANNELS, KERNELS, SMALL, SEEDS, st.sampled_from(["avx2", "generic", "neon"]))
def test_convolutions_on_other_tiles(kind, c, h, w, o, k, stride, seed, isa):
    pads = ((1, 1), (1, 1))
    assert_conv(kind, "float32", 2, c, h, w, o, (k, k), (stride, stride), pads, (1, 1), 1, 2, seed, isa)


@pytest.mark.parametrize("kind", ["forward", "data", "weight"])
@pytest.mark.parametrize(
    "n, c, h, w, o, kernel, stride, padding, dilation, groups",
    [
        (2, 3, 32, 32, 32, (3, 3), (1, 1), ((1, 1), (1, 1)), (1, 1), 1),
        (1, 64, 1, 500, 64, (1, 5), (1, 1), ((0, 0), (2, 2)), (1, 1), 1),  # 1-d
        (1, 64, 1, 5000, 40, (1, 7), (1, 2), ((0, 0), (3, 3)), (1, 2), 1),  # rows are cut
        (1, 70, 1, 900, 3, (1, 4), (1, 1), ((0, 0), (200, 1)), (1, 1), 1),
        (1, 3, 2, 700, 40, (2, 3), (1, 3), ((1, 0), (0, 2)), (1, 1), 1),
        (2, 16, 28, 28, 16, (3, 3), (1, 1), ((1, 1), (1, 1)), (1, 1), 16),  # depthwise
        (1, 3, 9, 9, 4, (2, 2), (5, 5), ((0, 0), (0, 0)), (1, 1), 1),  # stride over kernel: dx is 0 in between
        (1, 3, 3, 3, 4, (7, 7), (1, 1), ((2, 2), (2, 3)), (1, 1), 1),  # kernel over input
        (1, 3, 40, 3, 4, (3, 3), (1, 1), ((0, 0), (40, 40)), (1, 1), 1),  # padding wider than a vector
        (3, 24, 14, 14, 40, (1, 1), (1, 1), ((0, 0), (0, 0)), (1, 1), 1),  # a product
        (3, 24, 14, 14, 40, (1, 1), (2, 2), ((0, 0), (0, 0)), (1, 1), 1),
        (2, 130, 12, 12, 70, (3, 3), (2, 2), ((1, 1), (1, 1)), (2, 2), 2),  # several blocks of k
        (1, 2, 200, 200, 3, (3, 3), (1, 1), ((1, 1), (1, 1)), (1, 1), 1),  # several chunks of rows
    ],
)
def test_convolutions_by_hand(kind, n, c, h, w, o, kernel, stride, padding, dilation, groups):
    assert_conv(kind, "float32", n, c, h, w, o, kernel, stride, padding, dilation, groups, 2, seed=3)


def test_nan_of_the_input_reaches_what_depends_on_it():
    x = np.ones((1, 5, 9, 9), np.float32)
    x[0, 2, 4, 4] = np.nan
    weights = np.ones((6, 5, 3, 3), np.float32)
    call = plan_conv("forward", "float32", 1, 5, 9, 9, 6, 3, 3, (1, 1), ((1, 1), (1, 1)), (1, 1), 1, 1)
    result = run(call, [x, weights], np.zeros((1, 6, 9, 9), np.float32), 1)
    is_touched = np.zeros((9, 9), bool)
    is_touched[3:6, 3:6] = True
    np.testing.assert_array_equal(np.isnan(result), np.broadcast_to(is_touched, (1, 6, 9, 9)))


@settings(max_examples=80, deadline=None)
@given(
    st.sampled_from(["float32", "float64", "int32", "int64", "uint32", "uint64"]), st.sampled_from([0, 1, 3, 50]),
    st.sampled_from([0, 1, 2, 17, 40, 41, 300, 2000]), st.booleans(), THREADS, SEEDS,
)  # fmt: skip
def test_argsort_is_stable_and_puts_nan_last(dtype, rows, length, few_values, threads, seed):
    rng = np.random.default_rng(seed)
    if dtype in FLOATS:
        keys = rng.standard_normal((rows, length)).astype(dtype)
        if few_values:
            keys = rng.choice(np.array([np.nan, -np.nan, np.inf, -np.inf, 0.0, -0.0, 1.5, -2.0], dtype), (rows, length))
    else:
        limits = np.iinfo(dtype)
        low, high = (limits.max - 3, limits.max) if few_values else (limits.min, limits.max)
        keys = rng.integers(low, high, (rows, length), dtype=dtype, endpoint=True)
    result = run(plan_sort(dtype, rows, length, threads), [keys], np.zeros((rows, length), np.int64), threads)
    np.testing.assert_array_equal(result, np.argsort(keys, axis=-1, kind="stable"))


@pytest.mark.parametrize("dtype", ["float32", "float64", "int32", "int64"])
@pytest.mark.parametrize(
    "shape", [(0, 3, 3), (3, 0, 2), (5, 7, 1), (3, 9, 20), (2, 33, 1100), (1, 50_000, 1), (4, 1, 5)]
)
@pytest.mark.parametrize("reverse", [False, True])
def test_cumulative_sums(dtype, shape, reverse):
    x = (np.random.default_rng(5).standard_normal(shape) * 100).astype(dtype)
    result = run(plan_cumsum(dtype, *shape, 2, reverse=reverse), [x], np.zeros(shape, dtype), 2)
    step = -1 if reverse else 1
    np.testing.assert_array_equal(result, np.cumsum(x[:, ::step], axis=1, dtype=dtype)[:, ::step])


@pytest.mark.parametrize("family", ["gemm_f32", "conv_f32", "sort"])
def test_objects_need_only_the_pool_and_c(family):
    defined, undefined = read_symbols(library.build(family))
    assert set(library.FAMILIES[family]) <= defined
    assert undefined <= {"tg_par_for", "memset", "memcpy", "memmove"}


def test_planning_needs_no_numba():
    script = (
        "import sys\n"
        "from tracegrad.codegen import plan_conv, plan_gemm, plan_sort\n"
        "from tracegrad.runtime import objects, pool\n"
        "assert 'numba' not in sys.modules\n"
    )
    subprocess.run([sys.executable, "-c", script], check=True, cwd=Path(__file__).parent.parent)
