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
