"""Object code: compiled through Numba's code generator, loaded with llvmlite alone."""

from __future__ import annotations

import random
import subprocess
import sys

import pytest

from tracegrad.codegen.native import compile_ir
from tracegrad.runtime.objects import ObjectError, define_symbols, load_object, read_symbols

SAXPY = """
declare void @tg_test_external(i64)

define void @saxpy(ptr noalias %x, ptr noalias %y, i64 %n) {
entry:
  br label %loop
loop:
  %i = phi i64 [0, %entry], [%next, %loop]
  %px = getelementptr float, ptr %x, i64 %i
  %py = getelementptr float, ptr %y, i64 %i
  %vx = load float, ptr %px
  %vy = load float, ptr %py
  %p = fmul contract float %vx, 2.0
  %s = fadd contract float %p, %vy
  store float %s, ptr %py
  %next = add i64 %i, 1
  %more = icmp slt i64 %next, %n
  br i1 %more, label %loop, label %exit
exit:
  ret void
}

define void @calls_back(i64 %x) {
  call void @tg_test_external(i64 %x)
  ret void
}
"""

LOADER = """
import ctypes, sys
from tracegrad.runtime.objects import define_symbols, load_object
seen = []
callback = ctypes.CFUNCTYPE(None, ctypes.c_int64)(seen.append)
define_symbols({"tg_test_external": ctypes.cast(callback, ctypes.c_void_p).value})
addresses = load_object(open(sys.argv[1], "rb").read(), ["saxpy", "calls_back"])
x, y = (ctypes.c_float * 37)(*range(37)), (ctypes.c_float * 37)(*[1] * 37)
ctypes.CFUNCTYPE(None, ctypes.c_void_p, ctypes.c_void_p, ctypes.c_int64)(addresses["saxpy"])(x, y, 37)
assert list(y) == [2 * i + 1 for i in range(37)]
ctypes.CFUNCTYPE(None, ctypes.c_int64)(addresses["calls_back"])(42)
assert seen == [42]
assert "numba" not in sys.modules
"""


@pytest.fixture(scope="module")
def saxpy() -> bytes:
    return compile_ir(SAXPY, "saxpy")


def test_an_object_loads_in_a_process_without_numba(saxpy, tmp_path):
    path = tmp_path / "saxpy.o"
    path.write_bytes(saxpy)
    subprocess.run([sys.executable, "-c", LOADER, str(path)], check=True)


def test_symbols_are_read_from_the_object(saxpy):
    assert read_symbols(saxpy) == ({"saxpy", "calls_back"}, {"tg_test_external"})


def test_an_unresolved_symbol_is_an_error(saxpy):
    data = compile_ir(SAXPY.replace("tg_test_external", "tg_test_nowhere"), "saxpy")
    with pytest.raises(ObjectError, match="needs symbols that nothing defines: tg_test_nowhere"):
        load_object(data, ["saxpy"])


def test_a_missing_export_is_an_error(saxpy):
    with pytest.raises(ObjectError, match="does not define daxpy"):
        load_object(saxpy, ["daxpy"])


def test_garbage_is_an_error():
    with pytest.raises(ObjectError, match="ELF magic"):
        load_object(b"garbage", ["f"])


def test_a_truncated_object_is_an_error(saxpy):
    define_symbols({"tg_test_external": 1})
    for _ in range(50):
        with pytest.raises(ObjectError):
            load_object(saxpy[: random.randrange(len(saxpy) - 1)], ["saxpy"])
