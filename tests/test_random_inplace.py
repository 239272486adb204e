"""Random programs of views and changes in place, traced, against NumPy itself.

    TRACEGRAD_INPLACE=2000 pytest -q tests/test_random_inplace.py        tries more of them
"""

from __future__ import annotations

import linecache
import os
import random
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

import tracegrad as tg

PROGRAMS = int(os.environ.get("TRACEGRAD_INPLACE", "60"))
COMPILED = 6
"""One program of so many is compiled; all are traced."""
SHAPE = (4, 6)
VIEWS = (
    "{0}[1:]", "{0}[::-1]", "{0}.T", "{0}.reshape(-1)", "{0}[0]", "{0}[:, ::2]", "{0}.ravel()", "{0}[None]",
    "{0}.swapaxes(0, 1)", "np.squeeze({0})", "{0}.copy()", "np.asarray({0})", "{0}.flatten()", "np.flip({0}, 0)",
    "np.rot90({0})", "np.moveaxis({0}, 0, -1)", "np.split({0}, 2)[0]", "np.array_split({0}, 2)[1]", "np.tile({0}, 1)",
    "np.unstack({0})[0]", "{0}[..., 0]", "np.roll({0}, 0)", "{0}[[0, 1]]", "np.concatenate([{0}])", "{0}.astype(float)",
    "np.take({0}, [0], 0)", "np.where({0} > 0, {0}, 1.0)", "np.nan_to_num({0})", "np.cumsum({0}, 0)", "np.pad({0}, 0)",
)  # fmt: skip
CHANGES = (
    "{0} += 1.5", "{0} += 0.25 * {0}", "{0} += {0}.sum()", "{0} += {0}[::-1]", "{0}[0] = 3.0", "{0}[...] = a.sum()",
    "{0}[::2] = 7", "{0}[1:] -= 1.0", "{0}[[0, 0]] += 3.0", "{0}[np.array([0, -1])] *= 2.0", "{0}[{0} > 1.0] = 0.5",
    "{0}[:] = {1}", "{0} *= {1}", "np.add({0}, {1}, out={0})", "np.maximum.at({0}, 0, 0.1)",
)  # fmt: skip


def source_of(seed: int) -> str:
    """Write a program that NumPy can run, statement by statement."""
    rng = random.Random(seed)
    lines = ["def f(a, b):", "    x = a.copy()", "    y = x * 2.0", "    z = b + 0.0"]
    arrays = {name: np.ones(SHAPE) for name in "xyz"}
    for number in range(rng.randrange(4, 14)):
        name = rng.choice(list(arrays))
        if rng.random() < 0.4:
            made = f"v{number}"
            text = f"{made} = {rng.choice(VIEWS).format(name)}"
        else:
            made = ""
            alike = [n for n, v in arrays.items() if v.shape == arrays[name].shape]
            text = rng.choice(CHANGES).format(name, rng.choice(alike))
        try:
            exec(text, {"np": np, "a": np.ones(SHAPE)}, arrays)
        except (IndexError, ValueError):
            continue
        if made and arrays[made].ndim == 0:
            del arrays[made]
            continue
        lines.append(f"    {text}")
    return "\n".join([*lines, f"    return {', '.join(arrays)}"])


HEADS = (
    "if a[0, 0] > 0.0:", "if {0}.sum() > 3.0:", "if n > 2:", "for k in range(n):", "while k < n:", "for k in range(2):",
)  # fmt: skip
IN_BLOCKS = (
    *CHANGES, "{0} = {0} * 0.5", "{0}[k] += 1.0", "{0}[k] = 0.5 * {0}[k - 1]", "{0}[0][k] = 2.0", "{0}[-1] += {0}[k]",
    "{2} = {0}[k]\n{2} += 1.0", "{2} = {0}[1:]\n{2}[0] = 5.0", "{2} = {0}[k]\n{2}[0] = {0}[0, k]", "{0} = {1}",
    "{2} = {0}.T\n{2} *= 1.5", "{0}[k], {0}[0] = {0}[0] * 1.0, {0}[k] * 1.0",
)  # fmt: skip


def nested_source(seed: int) -> str:
    """Write a program whose arrays are changed in loops and under conditions that are traced, one in another."""
    rng = random.Random(seed)
    lines = ["def f(a, b, n):", "    x = a.copy()", "    y = x * 2.0", "    z = b + 0.0"]
    arrays: dict[str, Any] = {name: np.ones(SHAPE) for name in "xyz"}

    def block(number: int, depth: int) -> list[str]:
        inside = []
        for part in range(rng.randrange(1, 4)):
            if depth and rng.random() < 0.3:
                inside += block(10 * number + part, depth - 1)
                continue
            name = rng.choice(list(arrays))
            alike = [n for n, v in arrays.items() if v.shape == arrays[name].shape]
            inside += rng.choice(IN_BLOCKS).format(name, rng.choice(alike), f"r{number}{part}").split("\n")
        head = rng.choice(HEADS).format(rng.choice(list(arrays)))
        inside += ["k += 1"] if head.startswith("while") else []
        start = [] if head.startswith("if") and depth < 2 else [f"k = {rng.randrange(2)}"]
        return [*start, head, *(f"    {line}" for line in inside)]

    for number in range(1, rng.randrange(3, 7)):
        name = rng.choice(list(arrays))
        made = f"v{number}"
        if rng.random() < 0.4:
            text = f"{made} = {rng.choice(VIEWS[:12]).format(name)}"
        else:
            text = "\n".join(block(number, 2))
        found = {n: v.copy() for n, v in arrays.items()}
        try:
            exec(limited(text), {"np": np, "a": np.ones(SHAPE), "n": 3, "rounds": iter(range(100))}, found)
        except (IndexError, TypeError, ValueError, StopIteration):
            continue
        if made in found and found[made].ndim:
            arrays[made] = found[made]
        elif made in found:
            continue
        lines += [f"    {line}" for line in text.split("\n")]
    return "\n".join([*lines, f"    return {', '.join(arrays)}"])


def limited(text: str) -> str:
    """Return code that stops a loop which does not end."""
    return text.replace("while k < n:", "while k < n and next(rounds) >= 0:")


def function_of(source: str, seed: int) -> Callable[..., Any]:
    name = f"<in place {seed}>"
    linecache.cache[name] = (len(source), None, source.splitlines(keepends=True), name)
    found: dict[str, Any] = {"np": np}
    exec(compile(source, name, "exec"), found)
    function: Callable[..., Any] = found["f"]
    return function


@pytest.mark.parametrize("seed", range(PROGRAMS))
def test_as_numpy_does(seed: int) -> None:
    source = source_of(seed)
    function = function_of(source, seed)
    a, b = np.random.default_rng(seed).normal(size=(2, *SHAPE))
    expected = function(a.copy(), b.copy())
    if seed % COMPILED:
        with tg.eager():
            found = tg.vjp(function, a, b)[0]
    else:
        found = tg.jit(function)(a, b)
    for one, other in zip(found, expected, strict=True):
        np.testing.assert_allclose(one, other, rtol=1e-9, err_msg=source)


REFUSED = (
    "which may be the array of another variable", "is read by another name after", "has two names, one of which gets",
    "before a round and", "in one branch and", "the variable", "is set", "in place, under a traced condition",
)  # fmt: skip


@pytest.mark.parametrize("seed", range(PROGRAMS // 2))
def test_as_numpy_does_in_traced_blocks(seed: int) -> None:
    pytest.importorskip("malt")
    source = nested_source(seed)
    function = function_of(source, seed)
    a, b = np.random.default_rng(seed).normal(size=(2, *SHAPE))
    expected = function(a.copy(), b.copy(), 3)
    try:
        found = tg.jit(function)(a, b, 3)
    except tg.TracegradError as refusal:
        if not any(text in str(refusal) for text in REFUSED):
            pytest.fail(f"{refusal}\n{source}")
        return
    for one, other in zip(found, expected, strict=True):
        np.testing.assert_allclose(one, other, rtol=1e-9, err_msg=source)
