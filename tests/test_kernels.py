"""Library kernels: the subset of Python, compiled, beside Python itself."""

from __future__ import annotations

import ctypes
import random

import numpy as np
import pytest

from tracegrad.codegen import types
from tracegrad.codegen.addresses import load_word, loader, maximum, minimum, store_word, storer
from tracegrad.codegen.kernel import Kernel, kernel
from tracegrad.codegen.kernel_writer import write
from tracegrad.codegen.native import compile_library
from tracegrad.runtime.objects import load_object, read_symbols

WORD = types.int64
SHIFT = 3
load_f32, store_f32, load_i32, store_i32 = loader("float32"), storer("float32"), loader("int32"), storer("int32")


@kernel
def divide(a: int, b: int) -> int:
    return a // b if b != 0 else -7


@kernel
def remainder(a: int, b: int) -> int:
    if b == 0:
        return -7
    return a % b


@kernel
def by_constants(a: int, b: int) -> int:
    return a // 8 + 3 * (a % 8) + 5 * (a // 7) + 7 * (a % 7) + 11 * (a // -3) + 13 * (a % -3) + a // 1 + a % 1


@kernel
def bits(a: int, b: int) -> int:
    return ((a << SHIFT) ^ (b >> 2)) + (a & b) - (a | b) - -a


@kernel
def ranges(a: int, b: int) -> int:
    total = 0
    for i in range(a):
        total += i
        for j in range(b, -5, -2):
            if j == i:
                continue
            if j < -3:
                break
            total += i * j
    for k in range(3, a, 4):
        total -= k
    step = maximum(1, b)
    for k in range(0, a, step):
        total += 100 * k
    return total


@kernel
def last_of_range(a: int, b: int) -> int:
    i = -1
    for i in range(a):
        i = i * 2
    return i


@kernel
def collatz(a: int, b: int) -> int:
    a = 1 + a * a % 97
    count = 0
    while a != 1:
        a = a // 2 if a % 2 == 0 else 3 * a + 1
        count += 1
        if count > 40 and not b > 0:
            break
    return count


@kernel
def logic(a: int, b: int) -> int:
    both = a > 0 and b > 0
    either = a > 0 or (b > 0 and a == b)
    result = 1 if both else 0
    if either and (both or a < b):
        result += 10
    elif not either:
        result += 100
    return result + (both == either) + (4 if a else 2)


def plain(a: int, b: int) -> bool:
    return a < b


@kernel
def calls_a_function(a: int, b: int) -> int:
    return 1 if plain(a, b) and not plain(b, 0) else 2


@kernel
def swap(a: int, b: int) -> int:
    a, b = b, a + 1
    c = d = a - b
    c += 1
    return a * 31 + b + c * d


@kernel
def known(a: int, b: int) -> int:
    if SHIFT == 3 and not SHIFT < 0:
        a += 1
    else:
        a += undefined_name  # noqa: F821  (never written)
    return a if SHIFT > 2 else a + undefined_name  # noqa: F821


def run(target: Kernel, a: int, b: int) -> int:
    @kernel
    def entry(address: int, a: int, b: int) -> None:
        store_word(address, 0, target(a, b))

    if target not in LOADED:
        data = compile_library(write({"entry": (entry, types.void(WORD, WORD, WORD))}, "test"), "test")
        assert read_symbols(data) == ({"entry"}, set())
        LOADED[target] = ctypes.CFUNCTYPE(None, *[ctypes.c_int64] * 3)(load_object(data, ["entry"])["entry"])
    out = np.zeros(1, np.int64)
    LOADED[target](out.ctypes.data, a, b)
    return int(out[0])


LOADED: dict[Kernel, object] = {}


@pytest.mark.parametrize(
    "target", [divide, remainder, by_constants, bits, last_of_range, collatz, logic, calls_a_function, swap, known],
    ids=lambda k: k.function.__name__,
)
def test_kernels_compute_what_python_computes(target):
    rng = random.Random(0)
    pairs = [(rng.randrange(-60, 60), rng.randrange(-9, 9)) for _ in range(200)]
    for a, b in [(0, 0), (1, -1), (-1, 1), (7, 7), *pairs]:
        assert run(target, a, b) == int(target.function(a, b)), (a, b)


def test_loops_over_ranges():
    plain = {"maximum": max}
    expected = type(ranges.function)(ranges.function.__code__, plain)
    for a in range(-3, 12):
        for b in range(-7, 7):
            assert run(ranges, a, b) == expected(a, b), (a, b)


def test_division_by_zero_is_zero():
    @kernel
    def both(a: int, b: int) -> int:
        return a // b * 1000 + a % b

    assert run(both, 17, 0) == 0
    assert run(both, 17, -5) == -4 * 1000 - 3


def test_floats_and_small_integers():
    zero = np.float32(0)

    @kernel
    def sum_squares(source: int, count: int):
        total = zero
        for i in range(count):
            total += load_f32(source, i) * load_f32(source, i)
        return total

    @kernel
    def entry(source: int, target: int, count: int) -> None:
        total = sum_squares(source, count)
        store_f32(target, 0, total if total == total else -total)
        small = load_i32(source, 0)
        store_i32(target, 1, types.int32(small + 1))
        store_word(target, 1, minimum(small, load_word(source, 0)))

    data = compile_library(write({"entry": (entry, types.void(WORD, WORD, WORD))}, "test"), "test")
    call = ctypes.CFUNCTYPE(None, *[ctypes.c_int64] * 3)(load_object(data, ["entry"])["entry"])
    source = np.arange(1, 38, dtype=np.float32)
    target = np.zeros(4, np.float32)
    call(source.ctypes.data, target.ctypes.data, len(source))
    first = source[:1].view(np.int32)[0]
    assert target[0] == np.sum(source * source)
    assert target.view(np.int32)[1] == first + 1
    assert target.view(np.int64)[1] == min(int(first), int(source[:2].view(np.int64)[0]))


def test_nan_goes_the_way_of_python():
    @kernel
    def entry(source: int, target: int, count: int) -> None:
        x = load_f32(source, 0)
        store_word(target, 0, 1 if x < x else 0)
        store_word(target, 1, 1 if x == x else 0)
        store_word(target, 2, 1 if x != x else 0)

    data = compile_library(write({"entry": (entry, types.void(WORD, WORD, WORD))}, "test"), "test")
    call = ctypes.CFUNCTYPE(None, *[ctypes.c_int64] * 3)(load_object(data, ["entry"])["entry"])
    target = np.zeros(3, np.int64)
    for value, expected in ((np.nan, [0, 0, 1]), (1.0, [0, 1, 0]), (np.inf, [0, 1, 0])):
        source = np.array([value], np.float32)
        call(source.ctypes.data, target.ctypes.data, 1)
        assert target.tolist() == expected


@pytest.mark.parametrize("statement", ["x = a.b", "x = [a]", "x = undefined", "with a: pass", "x = 'text'", "print(a)"])
def test_what_is_not_in_the_subset_names_its_place(statement, tmp_path):
    path = tmp_path / "bad.py"
    path.write_text(f"def bad(a: int) -> None:\n    {statement}\n")
    names: dict[str, object] = {}
    exec(compile(path.read_text(), str(path), "exec"), names)
    with pytest.raises(NotImplementedError, match=r"bad\.py:2"):
        write({"bad": (kernel(names["bad"]), types.void(WORD))}, "test")


def test_a_variable_has_one_type():
    @kernel
    def mixed(address: int) -> None:
        x = 0
        x = load_f32(address, 0)
        store_f32(address, 0, x)

    with pytest.raises(NotImplementedError, match="float: where i64 is wanted"):
        write({"mixed": (mixed, types.void(WORD))}, "test")
