"""What loops and branches refuse, and the lines they name."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from control_checks import ROWS, X

import tracegrad as tg
from tracegrad.errors import ArgumentError, DTypeError, IndexOutOfBounds, ShapeError


def line_of(text: str) -> int:
    lines = Path(__file__).read_text(encoding="utf-8").splitlines()
    return next(i for i, line in enumerate(lines, 1) if text in line)


@pytest.mark.parametrize("kind", ["scan", "while", "cond"])
def test_an_index_error_in_a_body_names_the_line(kind: str) -> None:
    def read(table: Any, i: Any) -> Any:
        return table[i]  # the line of the index

    def fn(table: Any, n: Any) -> Any:
        if kind == "scan":
            return tg.scan(lambda c, i: (c + read(table, i + n), None), 0.0, np.arange(4))[0]
        if kind == "while":
            return tg.while_loop(lambda c: c[0] < n, lambda c: (c[0] + 1, c[1] + read(table, c[0])), (0, 0.0))[1]
        return tg.cond(n > 0, lambda i: read(table, i), lambda i: np.float64(0.0), n)

    f = tg.jit(fn)
    line = line_of("# the line of the " + "index")
    fine = {"scan": 0, "while": 4, "cond": 3}[kind]
    f(np.arange(4.0), fine)
    place = rf"at test_control_errors.py:{line}: "
    with pytest.raises(IndexOutOfBounds, match=place + ".*out of bounds for an axis of size 4"):
        f(np.arange(4.0), 9)
    f(np.arange(4.0), fine)


def message(error: type[Exception], fn: Callable[[], Any]) -> str:
    with pytest.raises(error) as caught:
        fn()
    first, *rest = str(caught.value).split("\n")
    name, place, text = first.partition(" at test_control_errors.py:")
    return "\n".join([name + text[text.index(":") :] if place else first, *rest])


def test_messages_about_branches() -> None:
    def whole(v: Any) -> Any:
        return v

    fix = "  fix: return the same structure, shapes and dtypes from every branch"
    for other, shown in [(lambda v: v[:2], "f64[2]"), (lambda v: (v, v), "f64[3], f64[3]"), (lambda v: 1, "i64")]:
        assert message(ShapeError, lambda other=other: tg.cond(True, whole, other, X)) == (
            f"cond: whole returns (f64[3]) but branch0 returns ({shown})\n{fix}"
        )
    assert message(ShapeError, lambda: tg.switch(0, [whole, lambda v: {"v": v}], X)) == (
        f"switch: branch1 returns (f64[3]) but whole returns (f64[3])\n{fix}"
    )
    assert message(ShapeError, lambda: tg.cond(X > 0, np.sin, np.cos, X)) == (
        "cond: the predicate has shape (3,), not one value\n  fix: reduce it with .all() or .any()"
    )
    assert message(DTypeError, lambda: tg.switch(1.0, [np.sin], X)) == (
        "switch: the index is float64[], not one integer\n  fix: use index.astype(np.int64)"
    )
    assert message(ArgumentError, lambda: tg.switch(0, [], X)) == (
        "switch: there are no branches\n  fix: pass at least one function"
    )


def test_messages_about_loops() -> None:
    carry = "  fix: start from values of the final shape and dtype, for instance np.float32(0), or convert with .astype"
    assert message(ShapeError, lambda: tg.while_loop(lambda c: c < 3, lambda c: c + 0.5, 0)) == (
        f"while_loop: the carry changes: i64 became f64\n{carry}"
    )
    assert message(ShapeError, lambda: tg.scan(lambda c, x: (c * x, None), 1.0, ROWS)) == (
        f"scan: the carry changes: f64 became f64[3]\n{carry}"
    )
    assert message(ShapeError, lambda: tg.while_loop(lambda c: c < 3, lambda c: (c, c), 0)) == (
        "while_loop: the body returns another structure than the initial carry\n  fix: return the same structure"
    )
    assert message(ShapeError, lambda: tg.while_loop(lambda c: c, lambda c: c, X)) == (
        "while_loop: the condition returns (f64[3]), not one bool\n  fix: compare, for instance x < 10"
    )
    assert message(ArgumentError, lambda: tg.scan(lambda c, x: c, 1.0, X)) == (
        "scan: the function must return (carry, y)\n  fix: return carry, None when there is no y"
    )
    assert message(ShapeError, lambda: tg.scan(lambda c, x: (c, None), 1.0, (X, X[:2]))) == (
        "scan: xs and length give the lengths [2, 3]\n  fix: give all xs the same first axis, or pass length="
    )
    assert message(ShapeError, lambda: tg.scan(lambda c, x: (c, None), 1.0, 2.0)) == (
        "scan: xs holds a scalar, which has no first axis\n  fix: pass arrays, or close over the scalar"
    )


def number_too_large(fn: Callable[..., Any]) -> None:
    """A number that does not fit into the int32 that a body computes with is refused, as NumPy refuses it."""
    x = np.arange(3, dtype=np.int32)
    with pytest.raises(DTypeError, match="argument n.*the number 1099511627776 does not fit i32"):
        tg.jit(fn)(x, 2**40)
    with pytest.raises(DTypeError, match="argument n.*the number 1099511627776 does not fit i32"):
        tg.compile(fn, x, 5)(x, 2**40)
    np.testing.assert_array_equal(tg.jit(fn)(x, 5), fn(x, 5))


def test_numbers_that_are_narrowed_in_bodies() -> None:
    number_too_large(lambda x, n: x + n)
    number_too_large(lambda x, n: tg.fori_loop(0, 3, lambda i, c: c + n, x))
    number_too_large(lambda x, n: tg.scan(lambda c, y: (c + n, y * n), x, x)[1])
    number_too_large(lambda x, n: tg.while_loop(lambda c: c.sum() < 20, lambda c: c + n, x))
    number_too_large(lambda x, n: tg.while_loop(lambda c: (c < n * np.int32(4)).any(), lambda c: c + 1, x))
    number_too_large(lambda x, n: tg.cond(x.sum() > 0, lambda: tg.scan(lambda c, y: (c + n, c), x, x)[0], lambda: x))
