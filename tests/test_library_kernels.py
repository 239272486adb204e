"""Sorts and running sums against NumPy, in guarded memory; what objects of library kernels need."""

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
from tracegrad.codegen.plan_sort import plan_cumsum, plan_sort
from tracegrad.runtime.objects import read_symbols

FLOATS = ("float32", "float64")
THREADS = st.sampled_from([1, 2])
SEEDS = st.integers(0, 2**32 - 1)


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
