"""Python's own control flow on traced values: what is refused, with its message and its line."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from python_programs import X
from test_python_control_branches import early_return

import tracegrad as tg

pytest.importorskip("malt")
COUNTS = [0]


class Holder:
    def __init__(self) -> None:
        self.history: list[Any] = []


def set_in_one_branch(x: Any) -> Any:
    if x > 0:
        y = x
    return y


def set_in_a_loop(x: Any) -> Any:
    while x > 0:
        y = x
        x = x - 1
    return y


def structures_differ(x: Any) -> Any:
    if x > 0:
        return x, x
    return x


def shape_changes(x: Any) -> Any:
    s = 0.0
    while x < 5:
        s = s + x * np.ones(3)
        x = x + 1
    return s


def returns_on_one_path(x: Any) -> Any:  # noqa: RET503 (that is what is refused)
    if x > 0:
        return x


def in_a_comprehension(x: Any) -> Any:
    return [v for v in (x, -x) if v > 0]


def in_a_generator(x: Any) -> Any:
    return sum(v for v in (x, -x) if v > 0)


def asserts(x: Any) -> Any:
    assert x > 0, "positive"
    return x


def raises(x: Any) -> Any:
    if x > 100:
        raise ValueError("large")
    return x


def assigns_inside_an_expression(x: Any) -> Any:
    while (y := x * 2) < 10:
        x = y
    return x


def matches_a_pair(x: Any) -> Any:
    match (x, x):
        case (a, b):
            return a if a > b else b


def sorts(x: Any) -> Any:
    return sorted([x, -x])[0]


def recurs(x: Any) -> Any:
    if x > 10:
        return x
    return recurs(x * 2)


def shapes_differ(x: Any) -> Any:
    y = np.ones(2) * x
    if x > 0:
        y = np.ones(3) * x
    return y


def dtypes_differ(x: Any) -> Any:
    y = np.zeros(2, np.float32)
    if x > 0:
        y = np.ones(2)
    return y


def strings_differ(x: Any) -> Any:
    y = "low"
    if x > 0:
        y = "high"
    return y


def appends_in_a_branch(x: Any) -> Any:
    out = []
    if x > 0:
        out.append(1.0)
    return sum(out) + x


def appends_in_a_loop(x: Any) -> Any:
    out = []
    while x < 10:
        out.append(x)
        x = x * 2
    return sum(out)


def keeps_a_history(x: Any) -> Any:
    holder = Holder()
    if x > 0:
        holder.history.append(x)
    return x + len(holder.history)


def counts_in_a_global(x: Any) -> Any:
    def count() -> float:
        COUNTS[0] = COUNTS[0] + 1
        return 1.0

    return x + (count() if x > 0 else 0.0)


def counts_in_a_closure(x: Any) -> Any:
    k = 1.0

    def count() -> float:
        nonlocal k
        k = k + 1.0
        return k

    if x > 0:
        x = x + count()
    return x + k


def writes_to_an_array(x: Any) -> Any:
    table = np.zeros(3)
    if x > 0:
        table[1:] = 5.0
    return table.sum() * x


def sets_an_element(x: Any) -> Any:
    table = np.zeros(3)
    if x > 0:
        table[0] = 5.0
    return table.sum() * x


def adds_a_key(x: Any) -> Any:
    found: dict[str, Any] = {}
    if x > 0:
        found["x"] = x
    return x + len(found)


def adds_an_attribute(x: Any) -> Any:
    holder = Holder()
    while x < 10:
        holder.last = x  # type: ignore[attr-defined]
        x = x * 2
    return x + len(vars(holder))


IN_PLACE = "in place, under a traced condition"
REFUSED: list[tuple[Callable[..., Any], list[str]]] = [
    (set_in_one_branch, ["the variable y", "set in only one branch", "give y a value"]),
    (set_in_a_loop, ["the variable y", "may run no round"]),
    (structures_differ, ["the result is (f64, f64) in one branch and f64 in the other"]),
    (shape_changes, ["s is float before a round and f64[3] after it"]),
    (returns_on_one_path, ["whether the function returns a value depends on a traced condition"]),
    (in_a_comprehension, ["comprehension", "it keeps elements on a traced condition", "use np.where"]),
    (in_a_generator, ["comprehension", "it keeps elements on a traced condition", "use np.where"]),
    (asserts, ["assert", "its condition is traced", "return the condition and check it outside"]),
    (raises, ["raise", "whether it is reached depends on a traced condition", "check it outside"]),
    (assigns_inside_an_expression, ["holds assignments inside expressions (:=), which are not converted"]),
    (matches_a_pair, ["a match statement with patterns other than values, names and _ is not converted"]),
    (sorts, ["sorted", "the order of traced values is not known", "use np.sort(x)"]),
    (recurs, ["recursion", "it ends on a traced condition", "write it as a loop"]),
    (shapes_differ, ["if", "y is f64[3] in one branch and f64[2] in the other"]),
    (dtypes_differ, ["if", "y is f64[2] in one branch and f32[2] in the other"]),
    (strings_differ, ["if", "y is 'high' in one branch and 'low' in the other"]),
    (appends_in_a_branch, ["if at test_python_control_refused.py:", f"it changes out {IN_PLACE}"]),
    (appends_in_a_loop, ["while", f"it changes out {IN_PLACE}", "tg.scan collects a value per round"]),
    (keeps_a_history, [f"it changes holder.history {IN_PLACE}"]),
    (counts_in_a_global, [f"it changes COUNTS {IN_PLACE}"]),
    (counts_in_a_closure, [f"it changes k {IN_PLACE}"]),
    (writes_to_an_array, [f"it changes table {IN_PLACE}"]),
    (sets_an_element, ["table[0] cannot hold a traced value", "x = x.at[i].set(v)"]),
    (adds_a_key, ["found['x']", "set in only one branch", "give found['x'] a value"]),
    (adds_an_attribute, ["holder.last", "may run no round", "give holder.last a value"]),
]


@pytest.mark.parametrize(("fn", "words"), REFUSED, ids=[r[0].__name__ for r in REFUSED])
def test_refused(fn: Callable[..., Any], words: list[str]) -> None:
    with pytest.raises(tg.TracegradError) as caught:
        tg.jit(fn)(1.0)
    for word in [*words, "fix: "]:
        assert word in str(caught.value)
    assert caught.value.where is not None
    assert caught.value.where.file == __file__
    first = fn.__code__.co_firstlineno
    assert first < caught.value.where.line <= first + 9


def test_what_a_refused_branch_changed_is_undone() -> None:
    COUNTS[0] = 7
    found: dict[str, Any] = {"a": 1}

    def fn(x: Any) -> Any:
        if x > 0:
            COUNTS.append(1)
            found["b"] = x
        return x

    with pytest.raises(tg.TracegradError, match="in place"):
        tg.jit(fn)(1.0)
    assert COUNTS == [7]
    assert found == {"a": 1}


def test_an_array_that_a_branch_makes_may_be_written_to_there() -> None:
    def fn(x: Any) -> Any:
        if x > 0:
            weights = np.ones(3)
            weights[1:] = 2.0
            x = x * weights.sum()
        return x

    assert tg.jit(fn)(2.0) == 10.0


def test_error_in_a_branch_names_its_line() -> None:
    def fn(x: Any) -> Any:
        if x[0] > 0:
            x = x + 1.0
            x = x @ np.ones((5, 5))
        return x

    with pytest.raises(tg.TracegradError) as caught:
        tg.jit(fn)(X)
    assert caught.value.where is not None
    assert caught.value.where.line == fn.__code__.co_firstlineno + 3


def test_without_source_the_way_out_is_named() -> None:
    namespace: dict[str, Any] = {}
    exec("def fn(x):\n    if x > 0: return x\n    return -x", namespace)
    with pytest.raises(tg.TracegradError, match="tg.cond or tg.while_loop; the source of fn is not at hand"):
        tg.jit(namespace["fn"])(1.0)


def test_without_the_library_the_extra_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    with pytest.raises(tg.TracegradError, match=r"tracegrad\[loops\]"):
        tg.jit(early_return)(1.0)


def test_eager_mode_runs_python() -> None:
    with tg.eager():
        assert tg.grad(early_return)(3.0) == 6.0


def test_vjp_and_compile_convert() -> None:
    y, pullback = tg.vjp(early_return, 3.0)
    assert y == 9.0 and pullback(1.0)[0] == 6.0
    assert tg.compile(early_return, -2.0)(-3.0) == 3.0
