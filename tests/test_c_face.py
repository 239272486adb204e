"""Programs for C: a training step runs without Python, from the header and the library alone."""

from __future__ import annotations

import ctypes
import shutil
import subprocess
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import tracegrad as tg
import tracegrad.numpy
from tracegrad import tree
from tracegrad.errors import ArtefactError
from tracegrad.runtime import c_face

needs_compiler = pytest.mark.skipif(shutil.which("gcc") is None, reason="needs gcc")
OFFSET = np.linspace(0.0, 1.0, 5)

PROGRAM = """
#include <stdio.h>
#include "train.h"

int main(void) {
    double w[4][5], b[5] = {0}, x[8][4], y[8][5], rate = 0.1, loss;
    for (int i = 0; i < 4; i++) for (int j = 0; j < 5; j++) w[i][j] = 0.01 * (i - j);
    for (int i = 0; i < 8; i++) {
        for (int j = 0; j < 4; j++) x[i][j] = 0.1 * ((i * 7 + j * 3) % 11) - 0.5;
        for (int j = 0; j < 5; j++) y[i][j] = (i + j) % 2;
    }
    for (int step = 0; step < 5; step++) {
        int64_t status = train(&b[0], &w[0][0], &rate, &x[0][0], &y[0][0], &loss);
        if (status) return (int)status;
        printf("%.12g\\n", loss);
    }
    for (int j = 0; j < 5; j++) printf("%.12g\\n", w[3][j] + b[j]);
    return 0;
}
"""


def loss_of(p: Any, x: Any, y: Any) -> Any:
    return ((np.tanh(x @ p["w"] + p["b"]) - y + OFFSET) ** 2).mean()


def train(params: Any, rate: Any, x: Any, y: Any) -> Any:
    value, g = tg.value_and_grad(loss_of)(params, x, y)
    return tree.map(lambda p, d: p - rate * d, params, g), value


@needs_compiler
def test_a_training_step_without_python(tmp_path: Path) -> None:
    example = {"w": tg.spec((4, 5)), "b": tg.spec(5)}
    compiled = tg.compile(train, example, tg.spec(()), tg.spec((8, 4)), tg.spec((8, 5)), donate=("params",))
    library = compiled.export_c(tmp_path)
    assert sorted(p.name for p in tmp_path.iterdir()) == ["libtrain.so", "train.h"]
    text = (tmp_path / "train.h").read_text()
    assert "int64_t train(double *params_b, double *params_w, const double *rate, const double *x, " in text
    assert "double[4][5]: params['w'], becomes result[0]['w'], overwritten by a result" in text
    (tmp_path / "main.c").write_text(PROGRAM)
    command = ["gcc", "-Wall", "-Werror", "main.c", str(library), f"-Wl,-rpath,{tmp_path}", "-o", "main"]
    subprocess.run(command, cwd=tmp_path, check=True, capture_output=True)
    found = subprocess.run(["./main"], cwd=tmp_path, check=True, capture_output=True, text=True).stdout.split()
    i, j = np.arange(8)[:, None], np.arange(5)
    params = {"w": 0.01 * (np.arange(4)[:, None] - j), "b": np.zeros(5)}
    x, y = 0.1 * ((i * 7 + np.arange(4) * 3) % 11) - 0.5, ((i + j) % 2).astype(float)
    expected = []
    for _ in range(5):
        params, value = compiled(params, np.array(0.1), x, y)
        expected.append(value)
    expected += list(params["w"][3] + params["b"])
    np.testing.assert_allclose([float(v) for v in found], expected, rtol=1e-10)
    exported = subprocess.run(["nm", "-D", "--defined-only", str(library)], capture_output=True, text=True).stdout
    assert [line.split()[-1] for line in exported.splitlines()] == ["train"]  # two libraries do not disturb each other


@needs_compiler
def test_statuses_and_names(tmp_path: Path) -> None:
    compiled = tg.compile(lambda x, **kw: x[kw["int"]] * 2, tg.spec(3, np.float32), int=tg.spec(2, np.int64))
    library = ctypes.CDLL(str(compiled.export_c(tmp_path / "new", "pick")))
    text = (tmp_path / "new" / "pick.h").read_text()
    assert "int64_t pick(const float *x, const int64_t *int_, float *result);" in text
    assert "1  index: an index is out of bounds for an axis of size 3" in text
    library.pick.restype = ctypes.c_int64
    x, index, result = np.arange(3, dtype=np.float32), np.array([2, -1]), np.zeros(2, np.float32)
    pointers = [ctypes.c_void_p(a.ctypes.data) for a in (x, index, result)]
    assert library.pick(*pointers) == 0
    np.testing.assert_array_equal(result, [4.0, 4.0])
    index[0] = 7
    assert library.pick(*pointers) == 1


def test_what_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    compiled = tg.compile(lambda x: x + 1.0, tg.spec(3))
    for name in ("", "int", "a b", "tg_entry", "9", "int64_t", "free", "exp"):  # the last two are functions of C's
        with pytest.raises(ArtefactError, match="is no name for a C function"):
            compiled.export_c(tmp_path, name)
    monkeypatch.setattr(c_face.shutil, "which", lambda name: None)
    with pytest.raises(ArtefactError, match="there is no C compiler"):
        compiled.export_c(tmp_path, "add")
    monkeypatch.undo()
    if shutil.which("gcc"):
        (tmp_path / "file").write_text("")
        with pytest.raises(ArtefactError, match="cannot be written"):
            compiled.export_c(tmp_path / "file", "add")


@needs_compiler
def test_names_that_c_uses_otherwise(tmp_path: Path) -> None:
    """Names of what the function itself declares and calls, types, macros, and keys that would end a comment."""

    def total(arena: Any, table: Any, status: Any, free: Any, aligned_alloc: Any, int64_t: Any, NULL: Any) -> Any:
        return arena + 2.0 * table["*/ x"] + 4.0 * status + 8.0 * free + 16.0 * aligned_alloc + 32.0 * int64_t + NULL

    number = tg.spec(())
    compiled = tg.compile(total, number, {"*/ x": number}, *[number] * 5)
    library = ctypes.CDLL(str(compiled.export_c(tmp_path)))
    arguments = [np.float64(i) for i in range(7)]
    result = np.zeros(())
    places = [np.array(a) for a in arguments]
    library.total(*(ctypes.c_void_p(a.ctypes.data) for a in (*places, result)))
    arguments[1] = {"*/ x": arguments[1]}
    assert result == total(*arguments)
