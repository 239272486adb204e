"""dtypes as NumPy 2 promotes them: the whole table, with Python scalars and the traced values that stand for them."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

import tracegrad.numpy as tnp
from tracegrad.errors import DTypeError
from tracegrad.ir import DTYPES, Aval
from tracegrad.trace import Tracer, trace

ALL = list(DTYPES.values())
SCALARS: list[bool | int | float] = [True, 2, 1.5]
OPERATIONS = ["add", "multiply", "divide", "maximum", "floor_divide", "remainder", "power", "less", "logical_and"]
OPERATIONS += ["fmod", "arctan2", "hypot", "logaddexp", "logaddexp2", "copysign", "heaviside"]
FUNCTIONS = ["sin", "exp", "sqrt", "cbrt", "floor", "rint", "square", "absolute", "isnan", "logical_not"]


def expected_dtype(name: str, *operands: Any) -> Any:
    """Return NumPy's dtype; small integers that it makes float16 of become float32. None where NumPy refuses."""
    try:
        with np.errstate(all="ignore"):
            dtype = getattr(np, name)(*operands).dtype
    except TypeError:
        return None
    given = any(getattr(x, "dtype", None) == np.float16 for x in operands)
    return np.dtype(np.float32) if dtype == np.float16 and not given else dtype


def array(dtype: Any) -> Any:
    return np.ones(2, dtype)


def traced_dtype(name: str, avals: list[Any], weak: list[bool], *more: Any) -> Any:
    found: list[Any] = []

    def fn(*xs: Any) -> Any:
        y = getattr(tnp, name)(*xs, *more)
        found.append((y.dtype, y.weak))
        return y

    try:
        trace(fn, avals, weak=weak)
    except DTypeError:
        return None, False
    return found[0]


@pytest.mark.parametrize("name", OPERATIONS)
@pytest.mark.parametrize("left", ALL, ids=str)
def test_two_arrays(name: str, left: Any) -> None:
    for right in ALL:
        expected = expected_dtype(name, array(left), array(right))
        found, _ = traced_dtype(name, [Aval((2,), left), Aval((2,), right)], [])
        assert found == expected, right


@pytest.mark.parametrize("name", OPERATIONS)
@pytest.mark.parametrize("scalar", SCALARS, ids=str)
def test_array_and_python_scalar(name: str, scalar: Any) -> None:
    kind = np.dtype({bool: np.bool_, int: np.int64, float: np.float64}[type(scalar)])
    for dtype in ALL:
        expected = expected_dtype(name, array(dtype), scalar)
        assert traced_dtype(name, [Aval((2,), dtype)], [], scalar)[0] == expected, dtype
        assert traced_dtype(name, [Aval((2,), dtype), Aval((), kind)], [False, True])[0] == expected, dtype
        assert traced_dtype(name, [Aval((2,), dtype)], [], np.float32(1.0))[0] == expected_dtype(
            name, array(dtype), np.float32(1.0)
        )


@pytest.mark.parametrize("name", FUNCTIONS)
def test_one_array(name: str) -> None:
    for dtype in ALL:
        assert traced_dtype(name, [Aval((2,), dtype)], [])[0] == expected_dtype(name, array(dtype)), dtype


def test_only_weak_operands_stay_weak() -> None:
    f64, i64 = Aval((), np.dtype(np.float64)), Aval((), np.dtype(np.int64))
    for name, avals, more in [
        ("add", [f64, i64], ()),
        ("multiply", [f64], (2,)),
        ("sin", [i64], ()),
        ("negative", [i64], ()),
    ]:
        dtype, weak = traced_dtype(name, avals, [True] * len(avals), *more)
        assert weak, name
        assert dtype == (np.int64 if name == "negative" else np.float64)
    assert traced_dtype("add", [f64, f64], [True, False]) == (np.float64, False)


def test_weak_results_do_not_widen() -> None:
    def fn(x: Any, scale: Any) -> Any:
        return x * (1.0 / (scale + 1) ** 2) - tnp.where(x > 0, scale, 0.5)

    traced = trace(fn, [Aval((3,), np.dtype(np.float32)), Aval((), np.dtype(np.float64))], weak=[False, True])
    strong = trace(
        lambda x, s: (x * tnp.asarray(1.0), x * tnp.astype(s, np.float64)), [n.aval for n in traced.graph.inputs]
    )
    assert [o.dtype for o in strong.graph.outputs] == [np.float64, np.float64]
    assert traced.graph.outputs[0].dtype == np.float32


def test_numpy_scalars_are_strong() -> None:
    assert traced_dtype("add", [Aval((2,), np.dtype(np.float32))], [], np.float64(1.0))[0] == np.float64


def test_python_integer_that_does_not_fit() -> None:
    with pytest.raises(DTypeError, match=r"add.*: the number 300 does not fit u8"):
        trace(lambda x: x + 300, [Aval((2,), np.dtype(np.uint8))])
    np.testing.assert_array_equal(tnp.less(np.array([1, 255], np.uint8), 300), [True, True])


def test_result_type() -> None:
    def fn(x: Tracer, w: Tracer) -> Any:
        assert tnp.result_type(x, w) == np.float32
        assert tnp.result_type(x, np.float64) == np.float64
        return x

    trace(fn, [Aval((2,), np.dtype(np.float32)), Aval((), np.dtype(np.float64))], weak=[False, True])
    assert tnp.result_type(np.int8, 3) == np.int8
    assert tnp.promote_types(np.int8, np.uint8) == np.int16


@pytest.mark.parametrize("dtype", [np.longdouble, np.complex128, object, ">f4", "datetime64[s]", "U3"])
def test_refused_dtypes(dtype: Any) -> None:
    with pytest.raises(DTypeError, match="fix: "):
        tnp.add(np.zeros(2, dtype), 1.0)
    with pytest.raises(DTypeError):
        tnp.astype(np.zeros(2), dtype)
