"""The linker for our own object code: what it loads runs as MCJIT's, what it does not know it leaves alone."""

from __future__ import annotations

import ctypes
import os
import struct
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

import tracegrad as tg
from tracegrad.codegen.native import compile_ir
from tracegrad.runtime import elf, linking, objects

pytestmark = pytest.mark.skipif(not linking.is_native(), reason="llvmlite links on this machine")
ROOT = Path(tg.__file__).parent.parent
TABLE = """
@table = internal constant [3 x double] [double 1.5, double 2.5, double 4.0]
@count = internal global i64 0
declare double @cos(double)
define i64 @pick(i64 %x) {
  switch i64 %x, label %other [i64 0, label %a i64 1, label %b i64 2, label %c i64 3, label %d i64 4, label %e]
a: ret i64 17
b: ret i64 -5
c: ret i64 99
d: ret i64 1000
e: ret i64 12345
other: ret i64 0
}
define double @value(i64 %i) {
  %n = load i64, ptr @count
  %m = add i64 %n, 1
  store i64 %m, ptr @count
  %p = getelementptr double, ptr @table, i64 %i
  %x = load double, ptr %p
  %y = call double @cos(double %x)
  %z = sitofp i64 %m to double
  %r = fadd double %y, %z
  ret double %r
}
"""


@pytest.fixture(scope="module")
def table() -> bytes:
    return compile_ir(TABLE, "table")


def resolve(name: str) -> int:
    return objects.address_of(name)


def test_constants_variables_and_functions_of_the_c_library(table: bytes) -> None:
    addresses = linking.link(elf.read(table), resolve)
    assert set(addresses) == {"pick", "value"}
    pick = ctypes.CFUNCTYPE(ctypes.c_int64, ctypes.c_int64)(addresses["pick"])
    assert [pick(i) for i in range(6)] == [17, -5, 99, 1000, 12345, 0]
    value = ctypes.CFUNCTYPE(ctypes.c_double, ctypes.c_int64)(addresses["value"])
    assert [value(i) for i in range(3)] == [np.cos(x) + n for n, x in enumerate([1.5, 2.5, 4.0], 1)]


def test_it_computes_what_the_other_linker_computes(monkeypatch: pytest.MonkeyPatch) -> None:
    def loss(w: np.ndarray, x: np.ndarray) -> np.ndarray:
        return np.mean(np.tanh(x @ w) ** 2) + np.exp(-np.abs(w)).sum()

    w, x = np.linspace(-1, 1, 35).reshape(7, 5), np.linspace(-2, 3, 42).reshape(6, 7)
    ours = tg.compile(tg.value_and_grad(loss), w, x)(w, x)
    engines = len(objects._ENGINES)
    monkeypatch.setattr(linking, "is_native", lambda: False)
    theirs = tg.compile(tg.value_and_grad(loss), w, x)(w, x)
    assert len(objects._ENGINES) > engines
    assert ours[0] == theirs[0] and (ours[1] == theirs[1]).all()


def test_code_is_never_writable_and_executable(table: bytes) -> None:
    address = linking.link(elf.read(table), resolve)["value"]
    for line in Path("/proc/self/maps").read_text().splitlines():
        span, rights, *_ = line.split()
        start, stop = (int(x, 16) for x in span.split("-"))
        if start <= address < stop:
            assert rights == "r-xp"


def sections_of(data: bytes, kind: int) -> list[elf.Section]:
    return [s for s in elf.read(data).sections if s.kind == kind]


def changed(data: bytes, position: int, form: str, value: int) -> bytes:
    found = bytearray(data)
    struct.pack_into(form, found, position, value)
    return bytes(found)


Change = Callable[[bytes, elf.Section], bytes]
DAMAGE: dict[str, Change] = {
    "a place behind the section": lambda data, s: changed(data, s.offset, "<Q", 1 << 40),
    "the last byte of it": lambda data, s: changed(data, s.offset, "<Q", elf.read(data).sections[s.info].size - 7),
    "a symbol that is not there": lambda data, s: changed(data, s.offset + 12, "<I", 1 << 20),
    "the empty symbol": lambda data, s: changed(data, s.offset + 12, "<I", 0),
}


@pytest.mark.parametrize("damage", DAMAGE)
def test_damaged_relocations_are_refused(damage: str, table: bytes) -> None:
    for section in sections_of(table, elf.RELOCATIONS):
        with pytest.raises(objects.ObjectError, match="damaged object code|which has no address"):
            linking.link(elf.read(DAMAGE[damage](table, section)), resolve)


DAMAGED = """
import sys
from pathlib import Path
from damage import damages
from tracegrad.runtime import elf, linking, objects

data = Path(sys.argv[1]).read_bytes()
for changed in damages(data, [data[::-1], data + data]):
    try:
        linking.link(elf.read(changed), lambda name: objects.address_of(name) or 1)
    except (objects.ObjectError, linking.Unsupported, OSError):
        continue
"""


def test_damaged_objects_are_refused_or_loaded_but_end_no_process(table: bytes, tmp_path: Path) -> None:
    """What a digest would have told: the linker itself reads and writes nothing outside of the object."""
    path = tmp_path / "table.o"
    path.write_bytes(table)
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(map(str, (ROOT, ROOT / "tests")))}
    done = subprocess.run([sys.executable, "-c", DAMAGED, path], env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


def test_an_alignment_that_is_none_is_refused(table: bytes) -> None:
    (start,) = struct.unpack_from("<Q", table, 40)
    number = next(i for i, s in enumerate(elf.read(table).sections) if s.flags & elf.EXECUTABLE and s.size)
    for align in (3, 1 << 40):
        with pytest.raises(objects.ObjectError, match="alignment"):
            linking.link(elf.read(changed(table, start + 64 * number + 48, "<Q", align)), resolve)


def test_other_relocations_are_left_to_llvm(table: bytes, monkeypatch: pytest.MonkeyPatch) -> None:
    section = sections_of(table, elf.RELOCATIONS)[0]
    with pytest.raises(linking.Unsupported, match="kind 10"):
        linking.link(elf.read(changed(table, section.offset + 8, "<I", 10)), resolve)

    def refuse(*_: object) -> dict[str, int]:
        raise linking.Unsupported("a test")

    monkeypatch.setattr(linking, "link", refuse)
    address = objects.load_object(table, ["pick"])["pick"]
    assert ctypes.CFUNCTYPE(ctypes.c_int64, ctypes.c_int64)(address)(2) == 99


def test_where_memory_must_not_become_executable_llvm_is_asked(table: bytes, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(linking, "protect", lambda *_: -1)
    engines = len(objects._ENGINES)
    assert objects.load_object(table, ["pick"])["pick"]
    assert len(objects._ENGINES) == engines + 1


THREAD = """
import ctypes, sys, threading, time
from tracegrad.runtime.objects import define_symbols, load_object
callback = ctypes.CFUNCTYPE(None)(lambda: time.sleep(0.2))
define_symbols({"tg_test_sleep": ctypes.cast(callback, ctypes.c_void_p).value})
sleep = load_object(open(sys.argv[1], "rb").read(), ["sleeping"])["sleeping"]
threading.Thread(target=ctypes.CFUNCTYPE(None)(sleep), daemon=True).start()
time.sleep(0.05)
"""


def test_the_process_ends_while_a_thread_is_in_loaded_code(tmp_path: Path) -> None:
    """The interpreter ends a thread that comes back for the GIL by unwinding its stack, through our code."""
    text = "declare void @tg_test_sleep()\ndefine void @sleeping() uwtable {\n call void @tg_test_sleep()\n ret void\n}"
    path = tmp_path / "sleeping.o"
    path.write_bytes(compile_ir(text, "sleeping"))
    done = subprocess.run([sys.executable, "-c", THREAD, str(path)], capture_output=True, text=True, timeout=120)
    assert (done.returncode, done.stderr) == (0, "")
