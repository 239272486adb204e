"""Matrix products against NumPy in float64: every planner, odd sizes, any strides, in guarded memory."""

from __future__ import annotations

import os

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.library_machine import FLOATS, run
from tracegrad.codegen import plan_gemm as plan_gemm_words
from tracegrad.codegen.plan import HEADER_BYTES
from tracegrad.codegen.plan_gemm import plan_gemm
from tracegrad.codegen.tile_shape import tile_shape

EXAMPLES = int(os.environ.get("RANDOM_PRODUCTS", "120"))
REPEATABLE = "RANDOM_PRODUCTS" not in os.environ or "ALL_CPUS" in os.environ
EPSILON = {"float32": 1.2e-7, "float64": 2.3e-16, "int32": 0.0, "int64": 0.0}
SIZES = st.sampled_from([0, 1, 2, 3, 5, 13, 14, 15, 16, 17, 29, 31, 32, 33, 64, 65, 130, 300])
LAYOUTS = st.sampled_from(["plain", "transposed", "strided"])
THREADS = st.sampled_from([1, 2])
SEEDS = st.integers(0, 2**32 - 1)
check = settings(max_examples=EXAMPLES, deadline=None, derandomize=REPEATABLE, database=None)


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
    dtype, m, n, k, batch, threads, seed, layouts=("plain", "plain"), broadcast=(False, False), side="end"
):
    rng = np.random.default_rng(seed)
    a_memory, a = draw_matrix(rng, dtype, 1 if broadcast[0] else batch, m, k, layouts[0])
    b_memory, b = draw_matrix(rng, dtype, 1 if broadcast[1] else batch, k, n, layouts[1])
    gap = 3  # columns of C that belong to someone else
    c = np.full((batch, m, n + gap), 7, dtype)
    call = plan_gemm(
        dtype, m, n, k, element_strides(a, not broadcast[0]), element_strides(b, not broadcast[1]),
        (m * (n + gap), n + gap, 1), batch, threads,
    )  # fmt: skip
    result = run(call, [a_memory, b_memory], c, threads, side)
    wide = np.float64 if dtype in FLOATS else dtype
    expected = a.astype(wide) @ b.astype(wide)
    bound = EPSILON[dtype] * np.sqrt(k + 1) * 40
    np.testing.assert_allclose(result[:, :, :n], np.broadcast_to(expected, (batch, m, n)), rtol=0, atol=bound)
    assert (result[:, :, n:] == 7).all()


@check
@given(
    st.sampled_from([*FLOATS, "int32", "int64"]), SIZES, SIZES, SIZES, st.sampled_from([0, 1, 1, 2, 5]),
    THREADS, SEEDS, st.tuples(LAYOUTS, LAYOUTS), st.tuples(st.booleans(), st.booleans()),
    st.sampled_from(["start", "end"]),
)  # fmt: skip
def test_products_of_any_layout(dtype, m, n, k, batch, threads, seed, layouts, broadcast, side):
    assert_product(dtype, m, n, k, batch, threads, seed, layouts, broadcast, side)


@pytest.mark.parametrize("dtype", [*FLOATS, "int64"])
@pytest.mark.parametrize("m, n, k", [(1, 40, 30), (40, 1, 30), (19, 23, 16), (33, 40, 300), (8, 8, 8)])
@pytest.mark.parametrize("threads", [1, 2])
def test_batches_of_two_axes(dtype, m, n, k, threads):
    """Heads of attention: A is stored [outer, m, inner, k], and all of the inner axis share a B."""
    rng = np.random.default_rng(5)
    outer, heads = 3, 4
    a, b = ((9 * rng.standard_normal(s)).astype(dtype) for s in ((outer, m, heads, k), (outer, n, k)))
    call = plan_gemm(
        dtype, m, n, k, (m * heads * k, heads * k, 1), (n * k, 1, k), (m * n, n, 1), outer * heads, threads,
        inner=(heads, k, 0),
    )  # fmt: skip
    result = run(call, [a, b], np.zeros((outer, heads, m, n), dtype), threads)
    wide = np.float64 if dtype in FLOATS else dtype
    expected = a.astype(wide).swapaxes(1, 2) @ b.astype(wide).swapaxes(1, 2)[:, None]
    np.testing.assert_allclose(result, expected, rtol=0, atol=EPSILON[dtype] * 81 * 40 * np.sqrt(k))


@pytest.mark.parametrize("dtype", [*FLOATS, "int64"])
@pytest.mark.parametrize(
    "m, n, k, pairs", [(1, 5, 17, 3), (40, 33, 20, 5), (7, 300, 300, 2), (20, 19, 700, 9), (6, 3, 530, 3)]
)
@pytest.mark.parametrize("layouts", [("plain", "plain"), ("transposed", "strided"), ("plain", "transposed")])
@pytest.mark.parametrize("threads", [1, 2, 3])
def test_sums_over_pairs(dtype, m, n, k, pairs, layouts, threads):
    """A gradient of shared weights: the sum over a batch of products."""
    rng = np.random.default_rng(8)
    a_memory, a = draw_matrix(rng, dtype, pairs, m, k, layouts[0])
    b_memory, b = draw_matrix(rng, dtype, pairs, k, n, layouts[1])
    (a_pair, *a_strides), (b_pair, *b_strides) = element_strides(a, True), element_strides(b, True)
    call = plan_gemm(
        dtype, m, n, k, (0, *a_strides), (0, *b_strides), (0, n, 1), 1, threads, repeated=(pairs, a_pair, b_pair)
    )
    result = run(call, [a_memory, b_memory], np.zeros((m, n), dtype), threads)
    wide = np.float64 if dtype in FLOATS else dtype
    expected = (a.astype(wide) @ b.astype(wide)).sum(0)
    np.testing.assert_allclose(result, expected, rtol=0, atol=EPSILON[dtype] * np.sqrt(k * pairs) * 40)


@pytest.mark.parametrize("dtype", FLOATS)
@pytest.mark.parametrize("size", [1, 2, 3, 4, 7, 8, 16])
def test_thousands_of_tiny_products(dtype, size):
    assert_product(dtype, size, size, size, 3000, 2, seed=2, layouts=("plain", "transposed"))


def both_threads_worked(scratch, work_bytes):
    """Say whether the last words of each thread's part of the scratch say that it has computed a block."""
    parts = np.split(scratch[-2 * work_bytes :], 2)
    return all(part[-HEADER_BYTES:].view(np.int64)[0] == 1 for part in parts)


@pytest.mark.parametrize("dtype", FLOATS)
@pytest.mark.parametrize("m, n", [(4, 5), (1, 3), (2, 1), (1, 1)])
def test_a_million_terms_are_split(dtype, m, n):
    k = 1_000_000
    rng = np.random.default_rng(4)
    a, b = rng.standard_normal((m, k)).astype(dtype), rng.standard_normal((k, n)).astype(dtype)
    call = plan_gemm(dtype, m, n, k, (0, k, 1), (0, n, 1), (0, n, 1), 1, 2)
    assert "2 splits of k" in call.why or "2 blocks" in call.why
    expected = a.astype(np.float64) @ b.astype(np.float64)
    is_tile = min(m, n) > 1
    for _ in range(20 if is_tile else 1):
        scratch: list[np.ndarray] = []
        result = run(call, [a, b], np.zeros((m, n), dtype), 2, keep_scratch=scratch)
        np.testing.assert_allclose(result, expected, rtol=0, atol=EPSILON[dtype] * 200_000)
        if not is_tile or both_threads_worked(scratch[0], call.plan[plan_gemm_words.WORK_BYTES]):
            return
    pytest.skip("the operating system gave the other thread no time")


@pytest.mark.parametrize("dtype", FLOATS)
@pytest.mark.parametrize(
    "m, n, k",
    [(3, 5, 9000), (20, 20, 4000), (1, 1, 100_000), (1, 3000, 70), (3000, 1, 70), (700, 1100, 300), (1200, 40, 600)],
)
@pytest.mark.parametrize("threads", [1, 2])
def test_products_that_are_cut(dtype, m, n, k, threads):
    assert_product(dtype, m, n, k, 1, threads, seed=1)


@pytest.mark.parametrize("dtype", FLOATS)
@pytest.mark.parametrize("m, n, k, batch", [(70, 150, 600, 5), (50, 1500, 190, 1), (51, 1300, 190, 3)])
@pytest.mark.parametrize("threads", [1, 2])
def test_packed_a_is_kept(dtype, m, n, k, batch, threads):
    """For the next columns, and for the next product of a batch that has one A: blocks of k have their places."""
    rng = np.random.default_rng(7)
    a, b = rng.standard_normal((m, k)).astype(dtype), rng.standard_normal((batch, k, n)).astype(dtype)
    call = plan_gemm(dtype, m, n, k, (0, k, 1), (k * n, n, 1), (m * n, n, 1), batch, threads)
    assert call.plan[plan_gemm_words.KEPT_A] > 0
    for side in ("start", "end"):
        result = run(call, [a, b], np.zeros((batch, m, n), dtype), threads, side)
        np.testing.assert_allclose(result, a.astype(np.float64) @ b, rtol=0, atol=EPSILON[dtype] * 40 * np.sqrt(k))


@pytest.mark.parametrize("dtype", FLOATS)
@pytest.mark.parametrize("m, n, k", [(200, 300, 100), (45, 1100, 300), (301, 33, 700)])
@pytest.mark.parametrize("turned", [False, True])
def test_any_number_of_threads_gives_the_same_bits(dtype, m, n, k, turned):
    """Unless K is split, which is for small results only: how C is cut decides nothing about an element's sum."""
    rng = np.random.default_rng(6)
    a, b = rng.standard_normal((m, k)).astype(dtype), rng.standard_normal((n, k) if turned else (k, n)).astype(dtype)
    b_strides = (0, 1, k) if turned else (0, n, 1)
    calls = [plan_gemm(dtype, m, n, k, (0, k, 1), b_strides, (0, n, 1), 1, t) for t in (1, 2, 3)]
    assert [call.plan[plan_gemm_words.K_SPLITS] for call in calls] == [1, 1, 1]
    results = [run(call, [a, b], np.zeros((m, n), dtype), t) for t, call in enumerate(calls, 1)]
    assert results[0].tobytes() == results[1].tobytes() == results[2].tobytes()


@pytest.mark.parametrize("dtype", FLOATS)
@pytest.mark.parametrize(
    "m, n, k, layouts",
    [
        (3, 70, 333, ("plain", "transposed")), (16, 29, 300, ("transposed", "transposed")),
        (5, 600, 1100, ("strided", "plain")), (2, 1031, 3, ("plain", "plain")), (8, 515, 6, ("transposed", "plain")),
        (61, 3, 1100, ("plain", "plain")), (33, 2, 77, ("plain", "strided")), (97, 3, 40, ("transposed", "plain")),
        (1500, 2, 19, ("transposed", "transposed")), (4, 3, 3000, ("plain", "transposed")),
    ],
)  # fmt: skip
@pytest.mark.parametrize("threads", [1, 2])
@pytest.mark.parametrize("batch", [1, 3])
def test_narrow_products(dtype, m, n, k, layouts, threads, batch):
    call = plan_gemm(dtype, m, n, k, *layout_strides(m, n, k, layouts), (m * n, n, 1), 1, threads)
    assert "vectors" in call.why or tile_shape().isa != "avx2"  # whose vectors the sizes are chosen for
    for side in ("start", "end"):
        assert_product(dtype, m, n, k, batch, threads, 3, layouts, (False, batch == 3), side)


@pytest.mark.parametrize("dtype", FLOATS)
@pytest.mark.parametrize("m, n, k", [(4, 3, 200), (3, 2, 5000), (12, 3, 577), (2, 2, 64), (7, 3, 513)])
@pytest.mark.parametrize("threads", [1, 2])
@pytest.mark.parametrize("batch, gap", [(1, 0), (3, 0), (1, 1), (2, 9)])
def test_short_rows_are_read_in_place(dtype, m, n, k, threads, batch, gap):
    """Vectors of B reach into the rows that follow, and never behind the last one."""
    rng = np.random.default_rng(9)
    a = rng.standard_normal((batch, k, m)).astype(dtype)
    b = rng.standard_normal((batch, k * (n + gap) - gap)).astype(dtype)
    call = plan_gemm(
        dtype, m, n, k, (k * m, 1, m), (b.shape[1], n + gap, 1), (m * n, n, 1), batch, threads,
    )  # fmt: skip
    assert call.plan[plan_gemm_words.B_TAIL] > 0 or tile_shape().lanes(b.itemsize) <= n
    rows = np.pad(b, ((0, 0), (0, gap))).reshape(batch, k, n + gap)[:, :, :n]
    expected = a.astype(np.float64).swapaxes(1, 2) @ rows.astype(np.float64)
    for side in ("start", "end"):
        result = run(call, [a, b], np.zeros((batch, m, n), dtype), threads, side)
        np.testing.assert_allclose(result, expected, rtol=0, atol=EPSILON[dtype] * 40 * np.sqrt(k))


def layout_strides(m, n, k, layouts):
    of = {"plain": lambda r, c: (0, c, 1), "transposed": lambda r, c: (0, 1, r), "strided": lambda r, c: (0, 2 * c, 2)}
    return of[layouts[0]](m, k), of[layouts[1]](k, n)


@pytest.mark.parametrize("dtype", [*FLOATS, "int64"])
@pytest.mark.parametrize("m, n, k", [(0, 40, 70), (0, 1, 70), (1, 0, 70), (600, 0, 70), (0, 600, 70), (1, 40, 0)])
@pytest.mark.parametrize("layouts", [("plain", "transposed"), ("transposed", "plain")])
def test_empty_products(dtype, m, n, k, layouts):
    for threads in (1, 2):
        assert_product(dtype, m, n, k, 1, threads, 3, layouts)


@pytest.mark.parametrize("dtype", FLOATS)
@pytest.mark.parametrize("m, n, k", [(3, 40, 70), (40, 3, 131)])
@pytest.mark.parametrize("turned", [False, True])
def test_nan_and_inf_of_a_narrow_product_reach_their_row_and_column_only(dtype, m, n, k, turned):
    rng = np.random.default_rng(7)
    a, b = rng.standard_normal((m, k)).astype(dtype), rng.standard_normal((n, k) if turned else (k, n)).astype(dtype)
    a[1, k - 1], a[2, 0] = np.nan, np.inf
    b.reshape(-1)[-1] = -np.inf
    call = plan_gemm(dtype, m, n, k, (0, k, 1), (0, 1, k) if turned else (0, n, 1), (0, n, 1), 1, 1)
    result = run(call, [a, b], np.zeros((m, n), dtype), 1)
    with np.errstate(invalid="ignore"):
        expected = a @ (b.T if turned else b)
    for found in (np.isnan, np.isposinf, np.isneginf):
        np.testing.assert_array_equal(found(result), found(expected))


def test_nan_and_inf_reach_their_row_only():
    a = np.ones((20, 9), np.float32)
    a[3, 4], a[7, 2] = np.nan, np.inf
    b = np.ones((9, 40), np.float32)
    call = plan_gemm("float32", 20, 40, 9, (0, 9, 1), (0, 40, 1), (0, 40, 1), 1, 1)
    result = run(call, [a, b], np.zeros((20, 40), np.float32), 1)
    np.testing.assert_array_equal(result, a @ b)
