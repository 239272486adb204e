"""What users meet when a call does not fit: the text, the line of their own code and what to type instead."""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

import tracegrad.numpy as tnp
from tracegrad.errors import ArgumentError, DTypeError, ShapeError, TracegradError, TracerError
from tracegrad.ir import Aval, interpret
from tracegrad.trace import trace

F = np.float32
SE, AE = ShapeError, ArgumentError
ROWS: list[tuple[type[TracegradError], str, Callable[..., Any]]] = [
    (SE, "add at {line}: f32[2, 3] and f32[4] cannot be broadcast together", lambda x: x + np.zeros(4, F)),
    (SE, "sum at {line}: axis 2 does not exist in f32[2, 3]", lambda x: x.sum(axis=2)),
    (SE, "mean at {line}: the axes (0, -2) name one axis twice in f32[2, 3]", lambda x: np.mean(x, axis=(0, -2))),
    (AE, "max at {line}: the axis 'a' is not an integer", lambda x: tnp.max(x, axis="a")),
    (SE, "max at {line}: f32[0, 3] is empty along (0,), so it has no largest", lambda x: tnp.max(x[:0], axis=0)),
    (SE, "matmul: f32[2, 3] @ f32[2, 3] at {line}: the inner sizes 3 and 2 differ", lambda x: x @ x),
    (SE, "matmul: f32[2, 3] @ f32 at {line}: a scalar is not a matrix", lambda x: np.matmul(x, np.float32(1))),
    (SE, "reshape at {line}: f32[2, 3] has 6 elements but (4, 2) has 8", lambda x: x.reshape(4, 2)),
    (SE, "reshape at {line}: f32[2, 3] has 6 elements, which (4, -1) cannot hold", lambda x: x.reshape(4, -1)),
    (SE, "reshape at {line}: (-1, -1) has more than one -1", lambda x: x.reshape(-1, -1)),
    (SE, "transpose at {line}: axes (0, 0) are not a permutation", lambda x: x.transpose(0, 0)),
    (SE, "concatenate at {line}: f32[2, 3] and f32[3, 2] differ beside axis 0", lambda x: np.concatenate([x, x.T])),
    (SE, "stack at {line}: f32[2, 3] and f32[3, 2] differ in shape", lambda x: np.stack([x, x.T])),
    (AE, "concatenate at {line}: the list of arrays is empty", lambda x: tnp.concatenate([])),
    (SE, "split at {line}: axis 1 of f32[2, 3] cannot be split into 2 equal parts", lambda x: np.split(x, 2, 1)),
    (SE, "squeeze at {line}: axis 0 of f32[2, 3] has size 2, not 1", lambda x: x.squeeze(0)),
    (SE, "broadcast_to at {line}: f32[2, 3] cannot be broadcast to (3, 2)", lambda x: np.broadcast_to(x, (3, 2))),
    (SE, "einsum: f32[2, 3] and f32[2, 3] at {line}: a letter has the sizes 3", lambda x: np.einsum("ij,jk", x, x)),
    (AE, "einsum at {line}: 'i,j' names 2 operands but 1 were given", lambda x: np.einsum("i,j", x)),
    (SE, "einsum at {line}: 'i' does not fit f32[2, 3]", lambda x: np.einsum("i->i", x)),
    (AE, "add at {line}: a value of type NoneType is not an array", lambda x: tnp.add(x, None)),
    (AE, "add at {line}: a value of type str is not an array", lambda x: tnp.add(x, "a")),
    (AE, "add at {line}: the rows of a nested list differ in length", lambda x: tnp.add(x, [[1], [1, 2]])),
    (DTypeError, "add: an operand of shape (1,) has dtype object at {line}: it holds", lambda x: x + np.array([None])),
    (DTypeError, "an operand of shape (1,) has dtype <U1 at {line}: it is not one of", lambda x: tnp.add(x, ["a"])),
    (AE, "add at {line}: a masked array would lose its mask", lambda x: tnp.add(x, np.ma.ones(3))),
    (DTypeError, "subtract at {line}: bool[2, 3] and bool[2, 3] cannot be used with bool", lambda x: (x > 0) - (x > 1)),
    (DTypeError, "negative at {line}: bool[2, 3] cannot be used with bool", lambda x: -(x > 0)),
    (DTypeError, "bitwise_and at {line}: f32[2, 3] and i64 are not integers", lambda x: x & 1),
    (DTypeError, "invert at {line}: f32[2, 3] is not integer or bool", lambda x: ~x),
    (DTypeError, "power: i64[2, 3] to the power -1 at {line}: integers", lambda x: x.astype(int) ** -1),
    (AE, "where at {line}: one argument alone gives a result whose size", lambda x: np.where(x > 0)),
    (AE, "numpy.add at {line}: where= is not supported on traced values", lambda x: np.add(x, 1, where=x > 0)),
    (TracerError, "numpy.add at {line}: out= is an array of NumPy's", lambda x: np.add(x, 1, out=np.zeros((2, 3), F))),
    (AE, "numpy.std at {line}: where= is not supported", lambda x: np.std(x, where=x > 0)),
    (AE, "max at {line}: where= leaves nothing to start from", lambda x: np.max(x, where=x > 0)),
    (TracerError, "numpy.linalg.eigvals has no traced version at {line}", lambda x: np.linalg.eigvals(x)),
    (TracerError, "cannot be turned into a NumPy array while tracing", lambda x: np.asarray(x)),
    (AE, "norm at {line}: ord=3 of matrices is not supported", lambda x: np.linalg.norm(x, 3)),
    (AE, "pad at {line}: mode 'empty' is not supported", lambda x: np.pad(x, 1, mode="empty")),
    (SE, "zeros at {line}: the shape (-1,) has a negative size", lambda x: tnp.zeros(-1)),
    (AE, "zeros at {line}: the shape 1.5 does not hold integers", lambda x: tnp.zeros(1.5)),
    (TracerError, "an integer of a traced value f32 is not known while tracing", lambda x: tnp.zeros(x[0, 0])),
    (DTypeError, "'nonsense' is not a dtype", lambda x: x.astype("nonsense")),
    (AE, "take at {line}: mode 'far' is not known", lambda x: tnp.take(x, 0, mode="far")),
    (TracerError, "the truth value of a traced value bool is not known", lambda x: 1.0 if x[0, 0] > 0 else 0.0),
]  # fmt: skip


@pytest.mark.parametrize(("error", "text", "fn"), ROWS, ids=[row[1][:40] for row in ROWS])
def test_error_text(error: type[TracegradError], text: str, fn: Callable[..., Any]) -> None:
    with pytest.raises(error) as caught:
        trace(fn, [Aval((2, 3), np.dtype(F))])
    message = str(caught.value)
    line = f"test_numpy_errors.py:{fn.__code__.co_firstlineno}"
    assert text.replace("{line}", line) in message, message
    assert line in message
    assert re.search(r"\n  fix: \S", message)


def test_errors_are_those_of_python_as_well() -> None:
    with pytest.raises(ValueError, match="cannot be broadcast together"):
        tnp.add(np.zeros(2), np.zeros(3))
    with pytest.raises(TypeError, match="not an array"):
        tnp.sin(None)


def test_operators_leave_unknown_operands_to_python() -> None:
    def fn(x: Any) -> Any:
        assert (x == None) is False  # noqa: E711
        assert (x != "a") is True
        with pytest.raises(TypeError, match="unsupported operand"):
            x + "a"
        return x

    trace(fn, [Aval((2,), np.dtype(F))])


def test_numpy_protocol_takes_keywords_and_methods_of_ufuncs() -> None:
    x = np.arange(1.0, 7.0).reshape(2, 3)

    def fn(v: Any) -> Any:
        w = v.copy()
        w += 1.0
        w *= np.float64(2.0)
        return (
            np.add(v, 1, dtype=np.float32),
            np.add.reduce(v),
            np.add.reduce(v, axis=None, keepdims=True),
            np.maximum.reduce(v, axis=1),
            np.multiply.outer(v, v[0]),
            np.add.accumulate(v, axis=1),
            x + v,
            np.float64(2.0) * v,
            np.sum(v, axis=0, keepdims=True, out=None),
            abs(v),
            divmod(v, 2)[0],
            round(v, 1),
            +v,
            2**v,
            w,
            x @ v.T,
            v.mT,
            v.flatten(),
            np.linalg.norm(v, axis=0),
            np.concatenate((v, x)),
        )

    traced = trace(fn, [Aval((2, 3), np.dtype(np.float64))])
    found = interpret(traced.graph, x, *traced.captures)
    right: list[Any] = [
        np.add(x, 1, dtype=np.float32), np.add.reduce(x), np.sum(x, keepdims=True), np.max(x, 1),
        np.multiply.outer(x, x[0]), np.cumsum(x, 1), x + x, 2 * x, np.sum(x, 0, keepdims=True), abs(x), x // 2,
        np.round(x, 1), x, 2**x, (x + 1) * 2,
        x @ x.T, x.T, x.ravel(), np.linalg.norm(x, axis=0), np.concatenate((x, x)),
    ]  # fmt: skip
    for ours, theirs in zip(found, right, strict=True):
        assert ours.dtype == theirs.dtype
        np.testing.assert_allclose(ours, theirs)
