"""Changes in place under traced conditions and in traced loops, and what is known of arrays after those."""

from __future__ import annotations

import gc
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

import tracegrad as tg
from tracegrad import tree
from tracegrad.errors import TracegradError, TracerError
from tracegrad.testing import check_grads

Program = Callable[[Any], Any]


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


def chosen_in_a_loop(x: Any) -> Any:
    y, z, i = x.copy(), x * 2.0, 0
    while i < x[0]:
        if x[1] > 0.0:
            y = z
        i += 1
    z[0] = 3.0
    return y, z


def chosen_by_way_of_a_name_that_is_gone(x: Any) -> Any:
    y, z, w = x.copy(), x * 2.0, x * 3.0
    if x[0] > 0.0:
        y = z
    if x[1] > 0.0:
        w = y
    y = x * 4.0
    z[0] = 3.0
    return y, z, w


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
        loop_without_a_round, view_from_a_loop, turned_in_a_loop, chosen_in_a_loop,
        chosen_by_way_of_a_name_that_is_gone,
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


def element_under_a_condition(x: Any, n: Any) -> Any:
    y, m = x.copy(), np.ones((3, 5)) * x
    for i in range(n):
        y += 0.5
        m *= 1.5
        if y.sum() > 4.0:
            y[i] = 1.0
            m[i] = y
        if m[0, 0] > 2.0:
            m[0] += y
    return y, m


def elements_of_a_list_and_of_an_array(x: Any, n: Any) -> Any:
    pair = [x * 2.0, x * 3.0]
    if n > 1:
        pair[0] = pair[0] + 1.0
        pair[1][0] = 3.0
    return pair


def buffers_in_turn(x: Any, n: Any) -> Any:
    u, v = x.copy(), np.zeros_like(x)
    for _ in range(n):
        v[1:-1] = 0.5 * (u[2:] + u[:-2])
        u, v = v, u
    return u


def first_round_shows_that_it_is_compiled(x: Any, n: Any) -> Any:
    y, z, i, done = x.copy(), x * 2.0, 0, False
    part = z[1:]
    for _ in range(4):
        y += 1.0
        if y.sum() > 20.0 + n:
            break
    while not done:
        part += 1.0
        z[0] -= 1.0
        i += 1
        done = i > n or z.sum() > 100.0
    return y, z, part


def views_of_a_variable_that_gets_new_arrays(x: Any, n: Any) -> Any:
    y, z, s = x.copy(), np.ones((3, 5)) * x, 0.0
    for _ in range(n):
        part, turned = y[1:], z.T
        y += 1.0
        turned *= 1.5
        s = s + part.sum()
        if s < 30.0:
            part *= 2.0
        y = y * 0.5
        z = z * 0.5 + y
    return y, z, s


def copied_twice(x: Any, n: Any) -> Any:
    z = np.ones((3, 5)) * x
    v = z[::-1]
    w = v[::-1]
    if x[0] > 0.0:
        v[0] = 3.0
        r = w[n - n]
        r[0] = w[0, n]
    return z, v, w


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
        under_a_condition, element_under_a_condition, elements_of_a_list_and_of_an_array, buffers_in_turn,
        first_round_shows_that_it_is_compiled,
        views_of_a_variable_that_gets_new_arrays, copied_twice, given_a_new_array,
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


def given_another_name_s_array(x: Any) -> Any:
    y, z, i = x.copy(), x * 2.0, 0
    while i < x.sum():
        z[i] += 1.0
        z = y
        i += 1
    return y, z


def given_another_name_s_array_in_an_inner_loop(x: Any) -> Any:
    y, z, i = x.copy(), x * 2.0, 0
    while i < x.sum():
        y += 0.25 * y
        for _ in range(i):
            y = z
        i += 1
    return y, z


def changed_by_way_of_a_view(x: Any) -> Any:
    y, i = x.copy(), 0
    part = y[1:]
    while i < x.sum():
        part += 1.5
        y = y * 0.5
        i += 1
    return y, part


def argument_by_another_name(x: Any) -> Any:
    y, i = x, 0
    while i < 2.0 * x[0]:
        y += 1.0
        i += 1
    return y, x


def taken_anew_in_every_round(x: Any) -> Any:
    y, i = x.copy(), 0
    while i < x.sum():
        z = y
        for _ in range(i):
            z += 1.0
            z = z * 2.0
        i += 1
    return y


def changed_in_an_inner_loop(x: Any) -> Any:
    z, i = x.copy(), 0
    first = z
    while i < x.sum():
        for j in range(i):
            z[j] += 1.0
        z = z * 2.0
        i += 1
    return z, first


@pytest.mark.parametrize(
    "program",
    [
        with_a_second_name, named_again_in_the_loop, replaced_by_a_number, given_another_name_s_array,
        changed_in_an_inner_loop, given_another_name_s_array_in_an_inner_loop, changed_by_way_of_a_view,
        argument_by_another_name, taken_anew_in_every_round,
    ],
)  # fmt: skip
def test_what_a_loop_cannot_follow_is_refused(program: Program) -> None:
    pytest.importorskip("malt")
    with pytest.raises(TracegradError, match="is read by another name|has two names|before a round and float after"):
        tg.jit(program)(np.array([1.0, 2.0, 3.0]))


# --- rows of what a loop changes, and functions that change their arguments -------------------------------------------


def grow(u: Any, by: float) -> Any:
    u += by
    return u


def changed_by_a_function_before_a_break(x: Any) -> Any:
    y = x * 2.0
    for _ in range(3):
        if x[0] > 4.0:
            break
        y = grow(y, 0.5)
    return y


def part_changed_by_a_function_before_a_break(x: Any) -> Any:
    y = x * 2.0
    for _ in range(3):
        if x[0] > 4.0:
            break
        grow(y[1:], 0.5)
    return y


def rows_of_what_is_changed(x: Any) -> Any:
    y, s, rounds = np.outer(x, x), 0.0, 0
    while s < 50.0 and rounds < 2:
        for row in y:
            y[1:] += row
            s += row[0]
        rounds += 1
    return y, s


def first_rows_of_what_is_changed(x: Any) -> Any:
    y, s = np.outer(x, x), x[0]
    while s < 2.9:
        for i, row in enumerate(y[:2]):
            y[i + 1] += row * s
        s = s + 0.5
    return y, s


def rows_changed_themselves(x: Any) -> Any:
    y, s = np.outer(x, x), x[0]
    while s < 2.9:
        for row, v in zip(y, x, strict=True):
            row += v
            y[0] *= 0.9
        s = s + 0.5
    return y


def replaced_in_one_branch_changed_in_the_other(x: Any) -> Any:
    y = x * 2.0
    if x[0] > 0.5:
        y = y + x
    else:
        y += 0.5
    y[0] = 7.0
    return y


@pytest.mark.parametrize(
    "program",
    [
        changed_by_a_function_before_a_break, part_changed_by_a_function_before_a_break, rows_of_what_is_changed,
        first_rows_of_what_is_changed, rows_changed_themselves, replaced_in_one_branch_changed_in_the_other,
    ],
)  # fmt: skip
@pytest.mark.parametrize("x", [[1.0, 2.0, 3.0], [0.1, -2.0, 0.3], [6.0, 1.0, 1.0]])
def test_rows_and_functions_see_changes(program: Program, x: list[float]) -> None:
    pytest.importorskip("malt")
    compiled = tg.jit(program)
    tree.map(np.testing.assert_allclose, compiled(np.array(x)), program(np.array(x)))
    check_grads(compiled, (np.array(x),), order=1)


def test_what_only_garbage_refers_to_is_no_second_name() -> None:
    pytest.importorskip("malt")

    def held(u: Any) -> Any:
        keep = [u]
        keep.append(keep)  # nothing but a collection frees this
        return u * 2.0

    def program(x: Any) -> Any:
        y = x.copy()
        held(y)
        if x[0] > 0.5:
            y = y * 2.0
        y += 1.0
        return y

    gc.disable()
    try:
        np.testing.assert_allclose(tg.jit(program)(np.array([1.0, 2.0])), [3.0, 5.0])
    finally:
        gc.enable()


def test_a_loop_that_fills_an_array_copies_nothing() -> None:
    pytest.importorskip("malt")
    compiled = tg.compile(recurrence, np.ones(100), 50)
    assert "in place, nothing to copy" in compiled.schedule
    assert "100 rounds" not in compiled.schedule
    gradient = tg.compile(tg.grad(lambda x, n: (recurrence(x, n) ** 2).sum()), np.ones(100), 50)
    assert "tape[f64[100]]" not in str(gradient.graph)  # elements are kept for the pullback, not the array
    assert gradient.schedule.count("in place, nothing to copy") >= 3
