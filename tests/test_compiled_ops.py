"""Every primitive, compiled: its samples in every dtype it accepts, gradients, special values, sizes and reductions."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import chain, combinations
from typing import Any

import numpy as np
import pytest
from compiled import Batch, graph_of, program_of

import tracegrad.numpy  # noqa: F401 (puts the operators on traced values)
from tracegrad.errors import TracegradError
from tracegrad.grad.adjoint import joint
from tracegrad.ir import PRIMITIVES, Builder, Graph, Primitive
from tracegrad.ops import elementwise as ew
from tracegrad.ops import pool, reduce

FLOATS = (np.float32, np.float64)
INTS = (np.int8, np.int16, np.int32, np.int64, np.uint8, np.uint16, np.uint32, np.uint64)
DTYPES = (*FLOATS, *INTS, np.bool_)
TOLERANCE = {"float32": (4e-5, 4e-6), "float64": (1e-11, 1e-12)}
SAMPLED = [p for p in PRIMITIVES.values() if p.samples]
ELEMENTWISE = [p for p in SAMPLED if p.kind == "elementwise" and p.name != "convert"]
SPECIAL = [0.0, -0.0, 1.0, -1.0, 2.5, -2.5, 0.5, np.inf, -np.inf, np.nan, 1e30, -1e30, 1e-30]


def draw(prim: Primitive, sample: dict[str, Any], dtype: Any, rng: np.random.Generator) -> list[Any]:
    """Return operands of `dtype` inside the primitive's domain, then the sample's constants."""
    low, high = getattr(prim, "domain", (-2.0, 2.0))
    found: list[Any] = []
    for position, size in enumerate(sample["shapes"]):
        if prim.name == "where" and position == 0:
            found.append(rng.integers(0, 2, size).astype(np.bool_))
        elif np.dtype(dtype).kind == "f":
            found.append(np.asarray(rng.uniform(low, high, size), dtype))
        else:
            first = 0 if np.dtype(dtype).kind in "ub" or prim.name == "power" else -4
            found.append(np.asarray(rng.integers(first, 5, size)).astype(dtype))
    return [*found, *sample.get("constants", [])]


def sample_graph(prim: Primitive, sample: dict[str, Any], arrays: Sequence[Any]) -> Graph | None:
    """Return the graph of one application, or None where the primitive refuses the dtype."""
    params = sample.get("params", {})
    builder = Builder("sample")
    try:
        if arrays:
            return graph_of(lambda *xs: prim(*xs, **params), *arrays)
        return builder.finish([builder.add(prim, [], params)])
    except TracegradError:
        return None


@pytest.mark.parametrize("dtype", DTYPES, ids=lambda t: np.dtype(t).name)
def test_samples_of_all_primitives(dtype: Any) -> None:
    """All samples of a kind in one program; for floats with their gradients, in f64 also the second ones."""
    rng = np.random.default_rng(3)
    batches: dict[str, Batch] = {}
    for prim in SAMPLED:
        for number, sample in enumerate(prim.samples):
            arrays = draw(prim, sample, dtype, rng)
            graph = sample_graph(prim, sample, arrays)
            if graph is None:
                continue
            batch = batches.setdefault(prim.kind, Batch())
            batch.add(graph, arrays, f"{prim.name}-{number}")
            if graph.outputs[0].dtype.kind == "f" and sample.get("order", 2) and getattr(prim, "differentiable", True):
                twice = dtype is np.float64 and graph.outputs[0].aval.size > 1
                add_gradients(batch, graph, arrays, rng, f"{prim.name}-{number}", twice=twice)
    assert set(batches) >= {"elementwise", "shape", "reduce"}
    for batch in batches.values():
        batch.compare(*TOLERANCE.get(np.dtype(dtype).name, (0.0, 0.0)))


def add_gradients(
    batch: Batch, graph: Graph, arrays: list[Any], rng: np.random.Generator, label: str, *, twice: bool
) -> None:
    """Add the joint graph, and the joint graph of its gradients."""
    wrt = [i for i, a in enumerate(arrays) if np.asarray(a).dtype == graph.outputs[0].dtype]
    if not wrt:
        return
    first = joint(graph, wrt, seeds=(0,))
    values = [*arrays, *[cotangent(o, rng) for o in graph.outputs]]
    batch.add(first, values, f"gradient of {label}")
    if not twice:
        return
    seeds = range(1, 1 + len(wrt))
    second = joint(first, wrt, seeds=seeds)
    batch.add(second, [*values, *[cotangent(first.outputs[i], rng) for i in seeds]], f"second gradient of {label}")


def cotangent(output: Any, rng: np.random.Generator) -> Any:
    return np.asarray(rng.uniform(-1.0, 1.0, output.aval.shape), output.dtype)


@pytest.mark.parametrize("dtype", FLOATS, ids=lambda t: np.dtype(t).name)
def test_special_values(dtype: Any) -> None:
    """NaN, infinities and zeros give NaN, infinities and zeros where NumPy's functions do."""
    batch = Batch()
    for prim in ELEMENTWISE:
        if "f" not in prim.accepts:
            continue
        grid = np.meshgrid(*[np.array(SPECIAL, dtype)] * min(prim.nargs, 2))
        operands = [a.ravel() for a in grid]
        if prim.name == "where":
            operands = [operands[0] > 0, *operands]
        if prim.name in ("sin", "cos", "tan"):  # the last bits of a huge angle mean nothing
            operands = [np.clip(a, -1e4, 1e4) for a in operands]
        if prim.name in ("mod", "fmod", "floor_divide"):  # nor does the remainder of a quotient above 2**52
            operands = [np.clip(a, -1e5, 1e5) for a in operands]
            operands[1] = np.where(np.abs(operands[1]) < 1e-3, 0.0, operands[1]).astype(dtype)
        batch.add(graph_of(prim, *operands), operands, prim.name)
    batch.compare(1e-5 if dtype is np.float32 else 1e-12)


@pytest.mark.parametrize("dtype", FLOATS, ids=lambda t: np.dtype(t).name)
def test_signs_of_zeros(dtype: Any) -> None:
    x = np.array([0.0, -0.0, 1.0, -1.0, -0.3, 0.3], dtype)
    prims = [
        ew.neg,
        ew.abs_,
        ew.square,
        ew.sqrt,
        ew.sin,
        ew.tanh,
        ew.arctan,
        ew.floor,
        ew.ceil,
        ew.trunc,
        ew.rint,
        ew.expm1,
    ]
    prims += [ew.cbrt, ew.log1p, ew.erf, ew.sinh, ew.arcsinh, ew.arctanh, ew.sign]
    graph = graph_of(lambda v: [p(v) for p in prims], x)
    found = program_of(lambda v: [p(v) for p in prims], x)([x])
    assert len(graph.outputs) == len(found)
    for prim, y in zip(prims, found, strict=True):
        with np.errstate(all="ignore"):
            np.testing.assert_array_equal(np.signbit(y[:2]), np.signbit(prim(x)[:2]), err_msg=prim.name)


def test_ties() -> None:
    x = np.array([[2.0, 3.0, 3.0], [np.nan, 1.0, np.nan], [-0.0, 0.0, -0.0]], np.float32)
    batch = Batch()
    for prim in (reduce.argmax, reduce.argmin, reduce.reduce_max, reduce.reduce_min):
        for axis in (0, 1):
            batch.add(graph_of(lambda v, p=prim, a=axis: p(v, axes=(a,)), x), [x], f"{prim.name} {axis}")
    for prim in (reduce.reduce_max, reduce.reduce_min):
        graph = joint(graph_of(lambda v, p=prim: p(v, axes=(1,)), x), (0,), seeds=(0,))
        batch.add(graph, [x, np.ones(3, np.float32)], f"gradient of {prim.name}")
    y = np.array([[2.0, 2.0, 1.0, 5.0, 5.0, np.nan]])
    params = {"window": (2,), "stride": (2,), "padding": ((0, 0),)}
    graph = joint(graph_of(lambda v: pool.max_pool(v, **params), y), (0,), seeds=(0,))
    batch.add(graph, [y, np.ones((1, 3))], "gradient of max_pool")
    batch.compare(0.0)


CONVERSIONS = [np.bool_, *INTS, *FLOATS]


def test_conversions() -> None:
    """Between all dtypes; floats outside an integer's range saturate and are left out."""
    batch = Batch()
    for source in CONVERSIONS:
        kind = np.dtype(source).kind
        values = (
            [0, 1, 2, 100, -1, -100]
            if kind == "f"
            else [0, 1, 2, 100, 127, 128, 255, 2**15, 2**31, 2**63 - 1, -1, -128]
        )
        x = np.array(values, np.float64 if kind == "f" else np.int64).astype(source)
        for target in CONVERSIONS:
            positive = kind == "f" and np.dtype(target).kind == "u"
            given = x[:4] if positive else x
            batch.add(
                graph_of(lambda v, t=target: ew.convert(v, dtype=np.dtype(t)), given), [given], f"{source} {target}"
            )
    batch.compare(0.0)


# --- sizes ------------------------------------------------------------------------------------------------------------
SHAPES = [
    (),
    (1,),
    (0,),
    (1, 1),
    (0, 3),
    (3, 0),
    (2, 1, 0),
    (5,),
    (31,),
    (64,),
    (65,),
    (1000, 37),
    (3, 7, 41),
    (100_003,),
]


@pytest.mark.parametrize("dtype", [np.float32, np.float64, np.int8, np.bool_], ids=lambda t: np.dtype(t).name)
def test_sizes(dtype: Any) -> None:
    """Vectorised loops, their remainders, several tasks and empty arrays."""
    rng = np.random.default_rng(5)
    batch = Batch()
    for shape in SHAPES:
        x = np.asarray(rng.integers(0, 2, shape)).astype(dtype)
        y = np.asarray(rng.integers(0, 5, shape)).astype(dtype)
        batch.add(graph_of(several, x, y), [x, y], f"{shape}")
    batch.compare(0.0)


def several(x: Any, y: Any) -> Any:
    """Return a few results of element-wise work on one shape."""
    if x.dtype == np.bool_:
        return ew.bitwise_and(x, y), ew.equal(x, y), ew.where(x, y, ew.logical_not(y))
    return x + y * x, ew.maximum(x, y), ew.less(x, y), ew.where(ew.equal(x, y), x, y)


# --- reductions -------------------------------------------------------------------------------------------------------
def subsets(ndim: int) -> list[tuple[int, ...]]:
    return list(chain.from_iterable(combinations(range(ndim), k) for k in range(ndim + 1)))


REDUCED = [(1,), (19,), (3, 5), (1, 6), (6, 1), (2, 3, 4), (3, 1, 5), (2, 3, 4, 5), (0, 4), (4, 0), (2, 0, 3)]


@pytest.mark.parametrize("dtype", DTYPES, ids=lambda t: np.dtype(t).name)
def test_reductions_over_every_subset_of_axes(dtype: Any) -> None:
    """Small values: sums are exact in every dtype (integers wrap)."""
    rng = np.random.default_rng(11)
    batch = Batch()
    usual = dtype in (np.float32, np.float64, np.int64, np.bool_)
    for shape in REDUCED if usual else REDUCED[:7]:
        x = np.asarray(rng.integers(0 if np.dtype(dtype).kind in "ub" else -3, 4, shape)).astype(dtype)
        for axes in subsets(len(shape)):
            add_reductions(batch, x, axes)
    batch.compare(0.0)


def add_reductions(batch: Batch, x: Any, axes: tuple[int, ...]) -> None:
    prims: list[Any] = [reduce.reduce_sum]
    if all(x.shape[a] for a in axes):
        prims += [reduce.reduce_max, reduce.reduce_min]
    if x.dtype.kind in "iu":
        prims.append(reduce.reduce_prod)
    batch.add(graph_of(lambda v: [p(v, axes=axes) for p in prims], x), [x], f"{x.dtype}{x.shape} over {axes}")
    if len(axes) == 1 and x.shape[axes[0]] and x.ndim < 4:
        for prim in (reduce.argmax, reduce.argmin):
            batch.add(
                graph_of(lambda v, p=prim: p(v, axes=axes), x), [x], f"{prim.name} {x.dtype}{x.shape} over {axes}"
            )


LARGE = [((1000, 37), np.float32), ((3, 70_000), np.float32), ((70_000, 3), np.float32), ((40, 50, 7, 11), np.float32)]
LARGE += [
    ((1000, 37), np.float64),
    ((3, 70_000), np.int32),
    ((200_001,), np.float32),
    ((200_001,), np.bool_),
    ((300, 400), np.int8),
]


@pytest.mark.parametrize(("shape", "dtype"), LARGE, ids=lambda v: str(v) if isinstance(v, tuple) else np.dtype(v).name)
def test_large_reductions(shape: tuple[int, ...], dtype: Any) -> None:
    """Against float64 for float32: blocked sums lose less than NumPy's own."""
    rng = np.random.default_rng(13)
    kind = np.dtype(dtype).kind
    x = np.asarray(rng.uniform(-1, 2, shape) if kind == "f" else rng.integers(0, 5, shape)).astype(dtype)
    axes = [a for a in subsets(len(shape)) if a]
    prims = [reduce.reduce_sum, reduce.reduce_max, reduce.reduce_min]
    found = iter(program_of(lambda v: [p(v, axes=a) for a in axes for p in prims], x)([x]))
    for a in axes:
        expected = [np.sum(x, axis=a, dtype=np.float64 if kind == "f" else dtype), np.max(x, axis=a), np.min(x, axis=a)]
        for value, reference in zip([next(found) for _ in prims], expected, strict=True):
            if kind == "f":
                np.testing.assert_allclose(value, reference, rtol=2e-6 if dtype is np.float32 else 1e-13, atol=1e-4)
            else:
                np.testing.assert_array_equal(value, reference)


def test_nan_and_infinity_in_reductions() -> None:
    x = np.zeros((4, 70_000), np.float32)
    x[1, 3], x[2, 69_999], x[3, 0], x[3, 5] = np.nan, np.inf, np.inf, -np.inf
    batch = Batch()
    for axes in ((0,), (1,), (0, 1)):
        add_reductions(batch, x, axes)
    batch.compare(0.0)


@pytest.mark.parametrize("dtype", FLOATS, ids=lambda t: np.dtype(t).name)
@pytest.mark.parametrize("size", [1, 2, 5, 33, 70])
def test_nan_spoils_only_the_rows_and_columns_it_is_in(size: int, dtype: Any) -> None:
    """What pads a tile must not reach a result."""
    a, b = np.ones((size, size + 1), dtype), np.full((size + 1, size + 2), 2.0, dtype)
    a[size // 2, -1], b[0, size - 1] = np.nan, np.inf
    (found,) = program_of(lambda x, y: x @ y, a, b)([a, b])
    expected = np.full((size, size + 2), 2.0 * (size + 1))
    expected[:, size - 1], expected[size // 2] = np.inf, np.nan
    np.testing.assert_array_equal(found, expected)


@pytest.mark.parametrize("dtype", FLOATS, ids=lambda t: np.dtype(t).name)
@pytest.mark.parametrize("size", [2, 9, 100_000])
def test_terms_of_a_sum_are_computed_as_written(size: int, dtype: Any) -> None:
    """The sum may be reordered, its terms may not be taken apart: x - x is NaN for infinities, (x + c) - c rounds."""
    x = np.linspace(0.0, 1.0, size).astype(dtype)
    c = dtype(1.5 * 2.0 ** np.finfo(dtype).nmant)
    (found,) = program_of(lambda v: reduce.reduce_sum((v + float(c)) - float(c), axes=(0,)), x)([x])
    assert found == np.sum(np.rint(x))
    x[size // 2] = np.inf
    (found,) = program_of(lambda v: reduce.reduce_sum(v - v, axes=(0,)), x)([x])
    assert np.isnan(found)
    (found,) = program_of(lambda v: reduce.reduce_sum(v[1:] - v[:-1], axes=(0,)), x)([x])
    assert np.isnan(found) or size == 2


@pytest.mark.parametrize("rows", [1, 5, 300])
def test_rows_that_are_passed_over_several_times(rows: int) -> None:
    """Softmax and variance, by rows and by columns, where a task has whole rows or blocks of columns."""
    rng = np.random.default_rng(17)
    x = rng.standard_normal((rows, 700))
    batch = Batch()
    for axis in (0, 1):
        batch.add(graph_of(lambda v, a=axis: softmax_and_variance(v, a), x), [x], f"axis {axis}")
    batch.compare(1e-11, 1e-12)


def softmax_and_variance(x: Any, axis: int) -> Any:
    def wide(v: Any) -> Any:
        return ew_broadcast(v, x.shape, axis)

    e = ew.exp(x - wide(reduce.reduce_max(x, axes=(axis,))))
    softmax = e / wide(reduce.reduce_sum(e, axes=(axis,)))
    centred = x - wide(reduce.reduce_sum(x, axes=(axis,)) / float(x.shape[axis]))
    return softmax, reduce.reduce_sum(centred * centred, axes=(axis,))


def ew_broadcast(value: Any, shape: tuple[int, ...], axis: int) -> Any:
    return PRIMITIVES["broadcast"](value, shape=shape, axes=tuple(a for a in range(len(shape)) if a != axis))
