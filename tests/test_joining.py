"""Objects joined into one: what one needs and another one has is linked, whoever loads the result."""

from __future__ import annotations

import ctypes
import random
import shutil
import subprocess
import sys
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import tracegrad as tg
from tracegrad.codegen import module
from tracegrad.codegen.native import compile_ir
from tracegrad.config import config
from tracegrad.runtime import elf, linking, objects
from tracegrad.runtime.joining import join
from tracegrad.runtime.objects import ObjectError, load_object

PARTS = (
    """
    @table = internal constant [2 x i64] [i64 30, i64 40], align 64
    @calls = internal global i64 0
    declare i64 @half(i64)
    declare double @cos(double)
    define i64 @entry(i64 %i) {
      %n = load i64, ptr @calls
      %m = add i64 %n, 1
      store i64 %m, ptr @calls
      %p = getelementptr i64, ptr @table, i64 %i
      %x = load i64, ptr %p
      %y = call i64 @half(i64 %x)
      %r = add i64 %y, %m
      ret i64 %r
    }
    """,
    """
    @table = internal constant [2 x i64] [i64 1000, i64 2000], align 64
    declare double @cos(double)
    declare i64 @entry(i64)
    define i64 @half(i64 %x) {
      %q = sdiv i64 %x, 2
      %p = getelementptr i64, ptr @table, i64 1
      %c = load i64, ptr %p
      %r = add i64 %q, %c
      ret i64 %r
    }
    define double @other(double %x) {
      %y = call double @cos(double %x)
      ret double %y
    }
    """,
    """
    define i64 @address() {
      ret i64 ptrtoint (ptr @half to i64)
    }
    declare i64 @half(i64)
    """,
)


@pytest.fixture(scope="module")
def parts() -> list[bytes]:
    return [compile_ir(text, "part") for text in PARTS]


def check(addresses: dict[str, int]) -> None:
    entry = ctypes.CFUNCTYPE(ctypes.c_int64, ctypes.c_int64)(addresses["entry"])
    assert [entry(0), entry(1), entry(0)] == [2016, 2022, 2018]
    address = ctypes.CFUNCTYPE(ctypes.c_int64)(addresses["address"])()
    assert ctypes.CFUNCTYPE(ctypes.c_int64, ctypes.c_int64)(address)(-8) == 1996


def test_what_one_object_needs_another_one_has(parts: list[bytes]) -> None:
    joined = join(parts, ["entry", "address"])
    assert objects.read_symbols(joined) == ({"entry", "address"}, {"cos"})
    for _ in range(2):  # each time with a counter of its own
        check(load_object(joined, ["entry", "address"]))


def test_the_order_of_the_objects_does_not_matter(parts: list[bytes]) -> None:
    check(load_object(join(parts[::-1], ["entry", "address"]), ["entry", "address"]))


def test_llvm_loads_it(parts: list[bytes], monkeypatch: pytest.MonkeyPatch) -> None:
    engines = len(objects._ENGINES)
    monkeypatch.setattr(linking, "is_native", lambda: False)
    check(load_object(join(parts, ["entry", "address"]), ["entry", "address"]))
    assert len(objects._ENGINES) == engines + 1


def test_the_result_can_be_joined_again(parts: list[bytes]) -> None:
    check(load_object(join([join(parts[:2], ["entry", "half"]), parts[2]], ["entry", "address"]), ["entry", "address"]))


@pytest.mark.skipif(shutil.which("gcc") is None, reason="needs gcc")
def test_the_system_s_linker_takes_it(parts: list[bytes], tmp_path: Path) -> None:
    (tmp_path / "joined.o").write_bytes(join(parts, ["entry", "address"]))
    subprocess.run(["gcc", "-shared", "-o", "joined.so", "joined.o", "-lm"], cwd=tmp_path, check=True)
    library = ctypes.CDLL(str(tmp_path / "joined.so"))
    check({n: ctypes.cast(getattr(library, n), ctypes.c_void_p).value or 0 for n in ("entry", "address")})


def test_one_object_stays_as_it_is(parts: list[bytes]) -> None:
    assert join(parts[:1], ["entry"]) is parts[0]


def test_a_symbol_that_two_objects_define_is_refused(parts: list[bytes]) -> None:
    with pytest.raises(ObjectError, match="two of them define half"):
        join([parts[1], parts[1]], ["half"])


def test_damaged_objects_are_refused(parts: list[bytes]) -> None:
    for _ in range(50):
        with pytest.raises(ObjectError):
            join([parts[0], parts[1][: random.randrange(len(parts[1]) - 1)]], ["entry"])


# --- programs in parts ------------------------------------------------------------------------------------------------


def network(w: Any, v: Any, x: Any) -> Any:
    h = np.tanh(x @ w)
    total = tg.fori_loop(0, 3, lambda i, c: c + np.sin(c).sum() * h.mean(axis=0), h.max(axis=0))
    return (np.exp(-((h @ v) ** 2)).sum(axis=1) * np.cumsum(x[:, 0])).mean() + (total**2).sum() + np.sort(x[0])[1]


def big_loss(w: Any, x: Any) -> Any:
    y = x
    for i in range(6):
        y = np.tanh(y * w + i) + np.where(y > 0.1 * i, y, -y).sum(axis=1, keepdims=True)
    return (y**2).mean()


def arrays(*shapes: tuple[int, ...]) -> list[Any]:
    rng = np.random.default_rng(0)
    return [rng.normal(size=shape) for shape in shapes]


PROGRAMS: dict[str, tuple[Callable[..., Any], list[Any]]] = {
    "network": (network, arrays((5, 6), (6, 7), (40, 5))),
    "tasks": (big_loss, arrays((300, 400), (300, 400))),
}


@pytest.mark.parametrize("name", PROGRAMS)
def test_a_program_in_parts_computes_the_same_bits(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    fn, given = PROGRAMS[name]
    monkeypatch.setattr(config, "cache", False)
    monkeypatch.setattr(config, "threads", 3)
    found, counts = [], []
    written = module.Module.parts

    def counted(self: module.Module, most: int) -> list[str]:
        texts = written(self, most)
        counts.append(len(texts))
        return texts

    monkeypatch.setattr(module.Module, "parts", counted)
    for part in (10**9, 1):
        monkeypatch.setattr(module, "PART", part)
        found.append(tg.compile(tg.value_and_grad(fn), *given)(*given))
    assert counts == [1, 3]
    assert found[0][0] == found[1][0]
    np.testing.assert_array_equal(found[0][1], found[1][1])


def test_where_no_thread_can_start_the_caller_compiles(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(self: threading.Thread) -> None:
        raise RuntimeError("can't start new thread")

    monkeypatch.setattr(module, "PART", 1)
    monkeypatch.setattr(config, "cache", False)
    monkeypatch.setattr(config, "threads", 3)
    w, x = PROGRAMS["tasks"][1]
    expected = tg.compile(big_loss, w, x)(w, x)
    with monkeypatch.context() as patch:
        patch.setattr(threading.Thread, "start", refuse)
        compiled = tg.compile(big_loss, w, x)
    assert compiled(w, x) == expected


def test_a_program_is_compiled_while_the_interpreter_ends() -> None:
    script = (
        "import atexit, numpy as np, tracegrad as tg\n"
        "from tracegrad.codegen import module\n"
        "module.PART, tg.config.cache = 1, False\n"
        "atexit.register(lambda: print(tg.jit(lambda x: np.sin(x).sum() + np.cumsum(x)[-1])(np.zeros(8))))\n"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, timeout=300)
    assert (done.stdout, done.stderr) == ("0.0\n", "")


@pytest.mark.skipif(shutil.which("gcc") is None, reason="needs gcc")
def test_a_program_in_parts_becomes_a_library_for_c(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(module, "PART", 1)
    monkeypatch.setattr(config, "cache", False)
    w, x = PROGRAMS["tasks"][1]
    compiled = tg.compile(big_loss, w, x)
    compiled.export_c(tmp_path, name="loss")
    library = ctypes.CDLL(str(next(tmp_path.glob("*.so"))))
    result = np.zeros(())
    assert library.loss(*(ctypes.c_void_p(a.ctypes.data) for a in (w, x, result))) == 0
    assert result == compiled(w, x)


def test_many_threads_compile_at_once(parts: list[bytes]) -> None:
    with ThreadPoolExecutor(8) as pool:
        found = [[pool.submit(compile_ir, text, "part") for text in PARTS] for _ in range(20)]
        for one in found:
            assert [future.result() for future in one] == parts
    assert all(elf.read(part).exports() for part in parts)
