"""Changes in place of traced values: what NumPy's arrays hold afterwards, the compiled program's do as well."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

import tracegrad as tg
from tracegrad import tree
from tracegrad.errors import DTypeError, ShapeError, TracegradError, TracerError
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


# --- after traced conditions and loops --------------------------------------------------------------------------------


def chosen_then_changed(x: Any) -> Any:
    y, w = x.copy(), x * 2.0
    z = y if x.sum() > 0.0 else w
    z[0] = 9.0
    return y, w, z


def source_of_a_choice_changed(x: Any) -> Any:
    y, w = x.copy(), x * 2.0
    if x.sum() > 0.0:
        z = y[1:]
    else:
        z = w[1:]
    y[1] = 9.0
    return y, z


def copied_in_one_branch(x: Any) -> Any:
    y = x * 2.0
    z = y if y.sum() > 100.0 else y.copy()
    z[0] = 4.0
    return y, z


def one_array_in_two_variables(x: Any) -> Any:
    if x.sum() > 0.0:
        a = x * 2.0
        b = a
    else:
        a = x * 3.0
        b = a[::-1]
    a[0] = 7.0
    return a, b


def loop_without_a_round(x: Any) -> Any:
    y = x.copy()
    z, i = y, 0
    while i < x.sum():
        z, i = z + 1.0, i + 1
    y[0] = 9.0
    return y, z


def view_from_a_loop(x: Any) -> Any:
    y = x.copy()
    row, i = y[0:1], 0
    while i < x.sum():
        row, i = y[1:2], i + 1
    y[1] = 50.0
    return y, row


def turned_in_a_loop(x: Any) -> Any:
    a, b = x * 2.0, x * 3.0
    v, i = a, 0
    while i < x.sum():
        a, b, i = b, a, i + 1
    a[0] = 5.0
    return a, b, v


@pytest.mark.parametrize(
    "program",
    [
        chosen_then_changed, source_of_a_choice_changed, copied_in_one_branch, one_array_in_two_variables,
        loop_without_a_round, view_from_a_loop, turned_in_a_loop,
    ],
)  # fmt: skip
def test_an_array_that_may_be_another_one_is_not_changed(program: Program) -> None:
    pytest.importorskip("malt")
    with pytest.raises(TracerError, match="which may be the array of another variable as well"):
        tg.jit(program)(np.array([1.0, 2.0, 3.0]))


def test_what_a_loop_or_branch_has_made_is_changed() -> None:
    pytest.importorskip("malt")

    def fn(x: Any) -> Any:
        h = x * 1.0
        for row in x:
            h = np.tanh(h + row)
        h += 1.0
        h[0] = 2.0
        y = x * 2.0
        if y.sum() > 0.0:
            y = y - 1.0
        y += 1.0
        return h, y

    x = np.array([1.0, 2.0, 3.0])
    for ours, theirs in zip(tg.jit(fn)(x), fn(x), strict=True):
        np.testing.assert_allclose(ours, theirs)


# --- in traced conditions and loops -----------------------------------------------------------------------------------


def recurrence(x: Any, n: Any) -> Any:
    y, i = x.copy(), 1
    while i < n:
        y[i] = y[i - 1] * 0.5 + x[i]
        i += 1
    return y


def other_names_follow(x: Any, n: Any) -> Any:
    y = x.copy()
    v, z = y[1:], y
    for i in range(n):
        y[i] = y[i] * 2.0
        v[i] += y[0]
    z *= 2.0
    return y, v, z


def nested_loops(x: Any, n: Any) -> Any:
    out, s = np.zeros((5, 3)), x[:3] * 1.0
    for i in range(n):
        for j in range(3):
            s[j] += out[i - 1, j] + x[j]
            out[i, j] = s.sum()
        s += 1.0
    return out, s


def branches_in_a_loop(x: Any, n: Any) -> Any:
    y = x.copy()
    for i in range(n):
        if y[i] > 1.5:
            y[i] = 0.0
            y[i + 1] += 1.0
        elif y[i] > 0.5:
            y[0] -= 0.1
    return y


def condition_reads_another_name(x: Any, n: Any) -> Any:
    y = x.copy()
    v, i = y, 0
    while v[i] < 3.0 and i < n:
        y[i] *= 1.5
        i += 1
    return y, v


def exchanged(x: Any, n: Any) -> Any:
    a, b, i = x * 1.0, x * 2.0, 0
    while i < n:
        a[i], b[i] = b[i], a[i]
        part = a[0:2]
        part += 1.0
        i += 1
    return a, b


def rows(x: Any, n: Any) -> Any:
    m = np.ones((3, 5)) * x
    for row in m:
        row += x
    i = 0
    while i < n:
        r = m[i]
        r[0] = -1.0
        m[i].reshape(5, 1)[4, 0] = 3.0
        m[i] += r
        m[0] += m[1]
        i += 1
    return m


def under_a_condition(x: Any, n: Any) -> Any:
    y, w = x.copy(), x * 2.0
    z = y
    if n > 1:
        y[...] = w
        y += 1.0
    if n > 100:
        y[:2] = 0.0
        np.copyto(y, x)
    return y, z


def given_a_new_array(x: Any, n: Any) -> Any:
    total, i = x * 0.0, 0
    while i < n:
        total += x
        total = np.clip(total, 0.0, 3.3)
        i += 1
    return total


@pytest.mark.parametrize(
    "program",
    [
        recurrence, other_names_follow, nested_loops, branches_in_a_loop, condition_reads_another_name, exchanged, rows,
        under_a_condition, given_a_new_array,
    ],
)  # fmt: skip
def test_loops_and_branches_change_arrays_as_numpy_does(program: Program) -> None:
    pytest.importorskip("malt")
    x = np.array([1.0, 2.0, 0.7, 1.2, 0.1])
    compiled = tg.jit(program)
    for n in (0, 1, 3):
        for ours, theirs in zip(tree.leaves(compiled(x, n)), tree.leaves(program(x.copy(), n)), strict=True):
            np.testing.assert_allclose(ours, theirs, rtol=1e-12)
    check_grads(lambda x: sum((leaf**2).sum() for leaf in tree.leaves(compiled(x, 3))), (x,))


def with_a_second_name(x: Any) -> Any:
    total = x * 0.0
    first, i = total, 0
    while i < x.sum():
        total += x
        total = total * 1.0
        i += 1
    return total, first


def named_again_in_the_loop(x: Any) -> Any:
    y, z, i = x.copy(), x * 2.0, 0
    while i < x.sum():
        y += 1.0
        z = y
        i += 1
    return y, z


def replaced_by_a_number(x: Any) -> Any:
    y, i = x.copy(), 0
    while i < x.sum():
        y += 1.0
        y = 3.0
        i += 1
    return y


@pytest.mark.parametrize("program", [with_a_second_name, named_again_in_the_loop, replaced_by_a_number])
def test_what_a_loop_cannot_follow_is_refused(program: Program) -> None:
    pytest.importorskip("malt")
    with pytest.raises(TracegradError, match="is read by another name|has two names|before a round and float after"):
        tg.jit(program)(np.array([1.0, 2.0, 3.0]))


def test_a_loop_that_fills_an_array_copies_nothing() -> None:
    pytest.importorskip("malt")
    compiled = tg.compile(recurrence, np.ones(100), 50)
    assert "in place, nothing to copy" in compiled.schedule
    assert "100 rounds" not in compiled.schedule
    gradient = tg.compile(tg.grad(lambda x, n: (recurrence(x, n) ** 2).sum()), np.ones(100), 50)
    assert "tape[f64[100]]" not in str(gradient.graph)  # elements are kept for the pullback, not the array
    assert gradient.schedule.count("in place, nothing to copy") >= 3
