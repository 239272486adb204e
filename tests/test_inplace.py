"""Changes in place of traced values: what NumPy's arrays hold afterwards, the compiled program's do as well."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

import tracegrad as tg
from tracegrad.errors import DTypeError, ShapeError, TracerError
from tracegrad.testing import check_grads

X = np.arange(20.0).reshape(4, 5) / 7.0 - 1.0
Program = Callable[[Any], Any]


def views(x: Any) -> Any:
    y = x.copy()
    rows = y[1:3]
    rows[0] = 7.0
    turned = y.T
    turned[0, 0] *= 2.0
    flat = y.reshape(-1)
    flat[-1] = y[0, 0] * 3.0
    for row in y:
        row += 1.0
    y[::-1][0] -= y[1]
    np.flip(y, 1)[2, 0] = 4.0
    part = y[1:, 2:][1]
    part[...] = part * 2.0
    return y, rows, turned, flat, part


def copies(x: Any) -> Any:
    y = x.copy()
    made = [
        np.array(y), np.copy(y), y.flatten(), y.astype(float), np.clip(y, -99, 99), np.concatenate([y]), np.roll(y, 0),
        +y, np.repeat(y, 1, axis=0), y[[0, 1, 2, 3]], y.T.ravel(), np.take(y, [0], axis=0), np.pad(y, 0), y**1,
        np.meshgrid(y[0], y[1])[0], np.nan_to_num(y), y.sum(axis=()), np.where(True, y, 0.0), np.tile(y, 1),
        y[:, ::5].ravel(),
    ]  # fmt: skip
    y[...] = 0.0
    return made


def shared(x: Any) -> Any:
    y = x.copy()
    made = [
        y, y[:], np.asarray(y), np.ravel(y), np.squeeze(y), y.T.T, np.atleast_2d(y), y[None], np.moveaxis(y, 0, 1),
        np.split(y, 2)[0], np.diag(y), y.diagonal(1), np.rot90(y), np.unstack(y)[1], np.broadcast_to(y, (2, 4, 5)),
        y.reshape(2, 10), y[..., 0],
    ]  # fmt: skip
    y *= 2.0
    y[1] = -1.0
    return made


def indices(x: Any) -> Any:
    y = x[0] * 1.0
    y[np.array([0, 3])] += 2.0
    y[[0, 1, 0]] += 1.0
    y[np.array([True, False, True, False, False])] = -1.0
    y[y > 2.0] = 2.0
    y[1:3], y[3:5] = y[3:5].copy(), y[1:3].copy()
    z = x.copy()
    z[z[:, 0] < 0] = y
    z[np.arange(4), np.arange(4)] = 9.0
    np.add.at(y, [0, 0, 1], 1.0)
    np.fill_diagonal(z, y[:4])
    z[1:].fill(0.25)
    np.copyto(z[3], y)
    np.subtract.at(y, 3, 0.5)
    return y, z


def dtypes(x: Any) -> Any:
    y = x.astype(np.float32)
    y += x
    y[0, 0] = x[1, 1]
    whole = np.zeros_like(x, dtype=int)
    whole[0, 1] = 2.9
    whole[1] = x[3] * 3.0
    whole *= 2
    flags = np.zeros_like(x, dtype=bool)
    flags[2] = x[2]
    return y, whole, flags


def outputs(x: Any) -> Any:
    y = np.empty_like(x)
    np.multiply(x, 2.0, out=y)
    np.exp(y[0], out=y[1])
    return y


def numbers(x: Any) -> Any:
    total = x[0, 0]
    before = total
    total += 1.0
    y = x[1] * 1.0
    y[0], y[1] = y[1], y[0]
    first, second, *_ = y
    last = np.unstack(y)[-1]
    whole = y[2:3].reshape(())[...]
    whole += 7.0
    y.sum().reshape(-1)[0] = 3.0
    y[...] = 0.0
    return total, before, first, second, last, whole


def recorded(program: Program) -> Program:
    """Return the program as a function that runs op by op, recorded for its gradient."""
    return lambda x: tg.grad(lambda x: (x.sum(), program(x)), has_aux=True)(x)[1]


@pytest.mark.parametrize("program", [views, copies, shared, indices, dtypes, outputs, numbers])
@pytest.mark.parametrize("eager", [False, True])
def test_as_in_numpy(program: Program, eager: bool) -> None:
    expected = program(X)
    if eager:
        with tg.eager():
            found = recorded(program)(X)
    else:
        found = tg.jit(program)(X)
    for place, (ours, theirs) in enumerate(zip(tg.tree.leaves(found), tg.tree.leaves(expected), strict=True)):
        assert ours.dtype == theirs.dtype, place
        np.testing.assert_allclose(ours, theirs, rtol=1e-6, err_msg=str(place))


@pytest.mark.parametrize("program", [views, indices, outputs])
def test_gradients(program: Program) -> None:
    check_grads(lambda x: [np.sin(y) for y in tg.tree.leaves(program(x))], (X,))


def filled(x: Any) -> Any:
    """Fills arrays of NumPy's own: these become traced ones."""
    out = np.zeros(4)
    for i in range(4):
        out[i] = x[i].sum() + (out[i - 1] if i else 0.0)
    table = np.eye(4)
    table[1] /= out[0]
    out += table @ out
    return np.array([out[0], 2.0, out[1]]), table


def test_arrays_of_numpy_are_filled() -> None:
    pytest.importorskip("malt")
    for ours, theirs in zip(tg.jit(filled)(X), filled(X), strict=True):
        np.testing.assert_allclose(ours, theirs)
    check_grads(tg.jit(lambda x: filled(x)[0]), (X,))
    with tg.eager():
        np.testing.assert_allclose(recorded(filled)(X)[1], filled(X)[1])
        gradient = tg.grad(lambda x: filled(x)[0].sum())(X)
    np.testing.assert_allclose(gradient, tg.grad(lambda x: filled(x)[0].sum())(X))


def test_results_go_where_out_says_in_converted_functions() -> None:
    def fn(x: Any) -> Any:
        y = np.asarray(x.copy())
        if x.sum() > 0.0:
            z = y + 1.0
        else:
            z = y - 1.0
        np.add(y, z, out=y)
        return np.multiply(y, 2.0, out=y)

    for x in (np.arange(3.0), -np.ones(3)):
        np.testing.assert_array_equal(tg.jit(fn)(x), fn(x))


def test_a_buffer_that_changes_is_another_constant() -> None:
    def steps(x: Any) -> Any:
        buffer, total = np.zeros(3), 0.0
        for i in range(3):
            buffer[i] = i + 1.0
            total = total + (x * buffer).sum()
        return total

    assert tg.jit(steps)(np.ones(3)) == steps(np.ones(3)) == 10.0
    with tg.eager():
        np.testing.assert_array_equal(tg.grad(steps)(np.ones(3)), [3.0, 4.0, 3.0])


def test_a_large_array_that_changes_is_refused() -> None:
    def steps(x: Any) -> Any:
        buffer = np.zeros(1 << 20)
        found = x + buffer
        buffer[0] = 1.0
        return found

    with pytest.raises(TracerError, match="was changed in place after the traced function had used it"):
        tg.jit(steps)(1.0)


def test_nothing_changes_behind_a_recorded_function() -> None:
    def program(x: Any) -> Any:
        y = x * 2.0
        value, pull = tg.vjp(lambda v: v * v, y)
        scaled = tg.jit(lambda v: v * y)
        before = scaled(y)
        y[0] = 100.0
        return value, pull(np.ones(3))[0], before, scaled(y)

    found = tg.jit(program)(np.ones(3))
    for ours, theirs in zip(found, ([4, 4, 4], [4, 4, 4], [4, 4, 4], [10000, 4, 4]), strict=True):
        np.testing.assert_array_equal(ours, theirs)


OUTSIDE = np.zeros(3)


def refused(error: type[Exception], message: str, program: Program) -> None:
    with pytest.raises(error, match=message):
        tg.jit(program)(X)


def assign(x: Any, index: Any, value: Any) -> Any:
    x[index] = value
    return x


def in_a_scan(x: Any) -> Any:
    y = x + 1.0
    return tg.scan(lambda c, row: (c, assign(y, 0, row)), 0.0, x)


def in_a_branch(x: Any) -> Any:
    y = x + 1.0

    def change() -> Any:
        y[0] = 0.0
        return y

    return tg.cond(x.sum() > 0.0, change, lambda: y)


def test_refusals() -> None:
    refused(TracerError, "iadd.*would change the argument x in place", lambda x: x.__iadd__(1.0))
    refused(TracerError, "the argument x", lambda x: assign(x.T, 0, 1.0))
    refused(TracerError, "an array of NumPy's", lambda x: (assign(OUTSIDE, 0, x[0, 0]), x))
    refused(TracerError, "broadcast gives is part", lambda x: assign(np.broadcast_to(x + 1, (2, 4, 5)), 0, 1.0))
    refused(TracerError, "diagonal gives is part of another", lambda x: assign(np.diag(x + 1), 0, 1.0))
    refused(ShapeError, r"f64\[2\].*whose number is not known", lambda x: assign(x[0] + 1, x[0] > 0, np.ones(2)))
    refused(ShapeError, r"the mask bool\[4\] does not fit f64\[5\]", lambda x: assign(x[0] + 1, x[:, 0] > 0, 0.0))
    refused(ShapeError, r"iadd.*f64\[4, 5\], which does not fit into f64\[5\]", lambda x: (x[0] + 1).__iadd__(x))
    refused(DTypeError, r"iadd.*f64\[4, 5\], which cannot be stored", lambda x: x.astype(int).__iadd__(x))
    refused(TracerError, "made outside of this loop", in_a_scan)
    refused(TracerError, "made outside of this loop", in_a_branch)
    refused(TracerError, "a number is not changed in place", lambda x: assign(x.sum(), ..., 1.0))
    assert (OUTSIDE == 0.0).all()
