"""Saved programs: one file runs elsewhere, keeps its structure, and is refused, never misread, when it is damaged."""

from __future__ import annotations

import collections
import os
import subprocess
import sys
import warnings
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pytest
from damage import damages

import tracegrad as tg
import tracegrad.numpy
from tracegrad import nn, optim, structure, tree
from tracegrad.__main__ import main
from tracegrad.api import saved
from tracegrad.codegen import cpu
from tracegrad.config import child_environment, config
from tracegrad.errors import ArgumentError, ArtefactError, IndexOutOfBounds, ShapeError
from tracegrad.runtime import artefact, sealed

ROOT = Path(tg.__file__).parent.parent
X = np.arange(12.0).reshape(3, 4)


class Pair(NamedTuple):
    first: Any
    second: Any


def squares(pair: Pair, scale: float) -> dict[str, Any]:
    return {"sum": (pair.first**2).sum() * scale, "parts": Pair(pair.first @ pair.second, [pair.second * 2.0])}


@pytest.fixture(scope="module")
def file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("saved") / "squares.tgx"
    tg.compile(squares, Pair(X, X.T.copy()), 0.5).save(path)
    return path


def check_squares(found: Any) -> None:
    assert isinstance(found["parts"], Pair) and isinstance(found["parts"].second, list)
    np.testing.assert_allclose(found["sum"], (X**2).sum() * 0.5)
    np.testing.assert_allclose(found["parts"].first, X @ X.T)
    np.testing.assert_array_equal(found["parts"].second[0], X.T * 2.0)


# --- what comes back --------------------------------------------------------------------------------------------------


def test_a_loaded_program_is_the_program(file: Path) -> None:
    loaded = tg.load(file, strict=True)
    check_squares(loaded(Pair(X, X.T.copy()), 0.5))
    ours = tg.compile(squares, Pair(X, X.T.copy()), 0.5)
    assert str(loaded.graph) == str(ours.graph)
    assert loaded.schedule == ours.schedule and loaded.kernels == ours.kernels
    assert loaded.source.startswith("def k")
    assert loaded.__name__ == "squares"
    with pytest.raises(ArgumentError, match="compiled for the arguments"):
        loaded(X, X.T, 0.5)
    with pytest.raises(ShapeError, match=r"pair\[0\] at .*: compiled for f64\[3, 4\]"):
        loaded(Pair(X[:2], X.T.copy()), 0.5)


SCRIPT = """
import sys
import numpy as np
import tracegrad as tg

f = tg.load(sys.argv[1], strict=True)
x = np.arange(12.0).reshape(3, 4)
np.testing.assert_allclose(f({"x": x, "w": x}, 2.0), 4.0 * x @ x.T + 1.0, rtol=1e-12)
assert "numba" not in sys.modules
print(*sorted(p.name for p in __import__("pathlib").Path(sys.argv[2]).glob("*")))
"""


def test_another_process_needs_neither_numba_nor_the_source_nor_a_cache(tmp_path: Path) -> None:
    offset = np.ones((3, 3))
    example = {"x": X, "w": X}
    tg.compile(lambda p, s: s * s * (p["x"] @ p["w"].T) + offset, example, 1.0).save(tmp_path / "f.tgx")
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "TRACEGRAD_CACHE_DIR": str(tmp_path / "none")}
    command = [sys.executable, "-c", SCRIPT, str(tmp_path / "f.tgx"), str(tmp_path / "none")]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert done.stdout == "\n"


def test_captured_arrays_keep_the_values_they_had(tmp_path: Path) -> None:
    weight = np.ones(3)
    program = tg.compile(lambda x: x * weight, tg.spec(3))
    weight[:] = 2.0
    program.save(tmp_path / "f.tgx")
    weight[:] = 7.0
    np.testing.assert_array_equal(tg.load(tmp_path / "f.tgx")(np.ones(3)), np.full(3, 2.0))
    assert "captured arrays, kept in the file:\n  f64[3]" in saved.inspect(tmp_path / "f.tgx")


def test_a_training_step_with_modules_and_optimizer_state(tmp_path: Path) -> None:
    model = nn.Sequential(nn.Linear(4, 5), nn.ReLU(), nn.Linear(5, 1))
    rule = optim.adam(0.1)

    def step(model: Any, state: Any, x: Any) -> Any:
        value, g = tg.value_and_grad(lambda m: (m(x) ** 2).mean())(model)
        updates, state = rule.update(g, state, model)
        return optim.apply_updates(model, updates), state, value

    x = np.ones((3, 4), np.float32)
    args = (model, rule.init(model), x)
    program = tg.compile(step, *args, donate=("model", "state"))
    program.save(tmp_path / "step.tgx")
    loaded = tg.load(tmp_path / "step.tgx")
    copies = [tree.map(np.array, args[:2]) for _ in range(2)]
    ours, theirs = (f(*copy, x) for f, copy in zip((program, loaded), copies, strict=True))
    assert tree.flatten(ours)[1] == tree.flatten(theirs)[1]
    assert isinstance(theirs[0], nn.Sequential)
    for a, b in zip(tree.leaves(ours), tree.leaves(theirs), strict=True):
        np.testing.assert_array_equal(a, b)
    assert theirs[0][0].weight is copies[1][0][0].weight  # donated


def test_static_values_and_index_errors_are_kept(tmp_path: Path) -> None:
    program = tg.compile(lambda x, i, power: x[i] ** power, X, np.array([1]), 3, static=("power",))
    program.save(tmp_path / "f.tgx")
    loaded = tg.load(tmp_path / "f.tgx")
    np.testing.assert_array_equal(loaded(X, np.array([2]), 3), X[[2]] ** 3)
    with pytest.raises(ArgumentError, match="static values power=3 but called with power=2"):
        loaded(X, np.array([2]), 2)
    with pytest.raises(IndexOutOfBounds, match=r"test_saved.py:\d+"):
        loaded(X, np.array([3]), 3)


def test_a_loaded_program_can_be_saved_again(file: Path, tmp_path: Path) -> None:
    tg.load(file).save(tmp_path / "again.tgx")
    assert (tmp_path / "again.tgx").read_bytes() == file.read_bytes()


def test_structures_survive() -> None:
    example = (
        {"b": 1.0, "a": [2.0, None]}, (), collections.OrderedDict(z=1.0, y=2.0), collections.deque([1.0], maxlen=3),
        collections.defaultdict(list, k=1.0), {3: 1.0, 2: ()}, nn.Conv2d(1, 2, 3, stride=2), Pair(1.0, Pair(2.0, ())),
    )  # fmt: skip
    treedef = tree.flatten(example)[1]
    assert structure.decode(structure.encode(treedef)) == treedef


def kind(value: Any) -> str:
    return type(value).__name__


VALUES = [None, True, -3, 2.5, float("inf"), "text", (1, ("a", None)), [1], {"k": (1.5,)}, np.dtype(np.float32)]


@pytest.mark.parametrize("value", [*VALUES, np.float32(0.1), np.tanh, len, squares, Pair], ids=kind)
def test_static_values_survive(value: Any) -> None:
    found = structure.decode_value(structure.encode_value(value))
    assert found == value and type(found) is type(value)


# --- what is refused --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("value", [lambda x: x, object(), {1, 2}, np.ones(2)], ids=["lambda", "object", "set", "array"])
def test_static_values_that_cannot_be_written_are_refused(value: Any) -> None:
    with pytest.raises(ArtefactError, match="save at "):
        structure.encode_value(value)


def test_classes_that_cannot_be_found_are_refused(file: Path, tmp_path: Path) -> None:
    class Local(nn.Module):
        def __init__(self) -> None:
            self.weight = np.ones(2)

    with pytest.raises(ArtefactError, match="cannot be found by its name"):
        tg.compile(lambda m: m.weight * 2.0, Local()).save(tmp_path / "f.tgx")
    assert not list(tmp_path.iterdir())
    for name, text in [
        ("nowhere.at_all:Pair", "cannot be imported"),
        ("os:system", "is not registered as a pytree"),
        ("tracegrad.nn.module:Layout", "is not registered as a pytree"),
    ]:
        with pytest.raises(ArtefactError, match=text):
            structure.decode(["node", name, None, ["*"]])
    for data in (["named", "os:system", []], {"a": 1}, ["tuple"], ["dict", [1], []], 7, ["node", "x", 1]):
        with pytest.raises(ArtefactError):
            structure.decode(data)


def test_damaged_files_are_refused(file: Path, tmp_path: Path) -> None:
    sound, target = file.read_bytes(), tmp_path / "f.tgx"
    tg.compile(lambda x: x + 1.0, X).save(target)
    for changed in damages(sound, [target.read_bytes()[::-1], b""]):
        target.write_bytes(changed)
        with pytest.raises(ArtefactError, match="is not a sound program file|has format .*, and this version reads"):
            tg.load(target)
    for other in (b"", b"\n", b"{}\n", b"[" * 100_000, b"\x7fELF", b'{"magic": "tracegrad-artefact"}\n'):
        target.write_bytes(other)
        with pytest.raises(ArtefactError, match="fix: save the program again"):
            tg.load(target)
    with pytest.raises(ArtefactError, match="cannot be read at .*: No such file"):
        tg.load(tmp_path / "nothing.tgx")


def rewritten(file: Path, target: Path, change: Any) -> Path:
    """Write a file with a right digest around a changed manifest."""
    manifest, data = sealed.unseal(file.read_bytes(), artefact.MAGIC, str(artefact.FORMAT))
    change(manifest)
    target.write_bytes(sealed.seal(artefact.MAGIC, str(artefact.FORMAT), manifest, data))
    return target


@pytest.mark.parametrize(
    "change",
    [
        lambda m: m.pop("builds"),
        lambda m: m.update(builds=[{}]),
        lambda m: m["signature"].pop("arguments"),
        lambda m: m["signature"].update(arguments=["tuple", ["*"]]),
        lambda m: m["builds"][0].update(program=[0, 10**12]),
        lambda m: m["builds"][0].update(program=[-5, 4]),
        lambda m: m.update(arrays=[{"dtype": "<f8", "shape": [9], "data": [0, 8]}]),
        lambda m: m.update(text="def f(: nonsense", interface="another"),
        lambda m: m.update(text="__import__('os').system('true')", interface="another"),
        lambda m: m.update(text="(" * 5000, interface="another"),
    ],
)
def test_files_of_wrong_content_are_refused(file: Path, tmp_path: Path, change: Any) -> None:
    path = rewritten(file, tmp_path / "f.tgx", change)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # some say first that they are compiled again
        with pytest.raises(ArtefactError):
            tg.load(path)


def test_another_format_is_refused_by_name(file: Path, tmp_path: Path) -> None:
    raw = file.read_bytes().replace(b'"name": "1"', b'"name": "9"', 1)
    (tmp_path / "f.tgx").write_bytes(raw)
    with pytest.raises(ArtefactError, match="format 9, and this version reads 1"):
        tg.load(tmp_path / "f.tgx")


@pytest.mark.parametrize(
    ("change", "text"),
    [
        (lambda m: m["builds"][0]["cpu"]["features"].append("avx1024"), "this CPU .* lacks avx1024"),
        (lambda m: m.update(interface="another"), "with another run time"),
        (lambda m: m["versions"].update(machine="riscv64"), "it was compiled on riscv64"),
        (lambda m: m["builds"][0].update(program=[0, 5]), "object code cannot be loaded"),
        (lambda m: m.update(builds=[]), "lacks"),
    ],
)
def test_a_foreign_program_is_compiled_again_and_says_so(file: Path, tmp_path: Path, change: Any, text: str) -> None:
    path = rewritten(file, tmp_path / "f.tgx", change)
    with pytest.warns(UserWarning, match=f"squares is compiled again from its graph: .*{text}"):
        check_squares(tg.load(path)(Pair(X, X.T.copy()), 0.5))
    with pytest.raises(ArtefactError, match=text):
        tg.load(path, strict=True)


# --- saving -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("broken", ["replace", "fsync"])
def test_a_save_that_fails_leaves_the_old_file(
    file: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, broken: str
) -> None:
    path = tmp_path / "f.tgx"
    path.write_bytes(file.read_bytes())
    program = tg.compile(lambda x: x + 1.0, X)

    def full(*args: Any) -> None:
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(sealed.os, broken, full)
        with pytest.raises(ArtefactError, match="cannot be written at .*: No space left on device"):
            program.save(path)
    assert path.read_bytes() == file.read_bytes() and list(tmp_path.iterdir()) == [path]
    with pytest.raises(ArtefactError, match="cannot be written"):
        program.save(tmp_path / "no" / "such" / "folder.tgx")
    program.save(path)
    np.testing.assert_array_equal(tg.load(path)(X), X + 1.0)


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="no pipes with names")
def test_a_device_or_a_pipe_is_not_replaced(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    with pytest.raises(ArtefactError, match="cannot be written at .*: it is a device or a pipe"):
        tg.compile(lambda x: x + 1.0, X).save(tmp_path / "pipe")
    assert (tmp_path / "pipe").is_fifo() and len(list(tmp_path.iterdir())) == 1


@pytest.mark.skipif("x86-64-v2" not in cpu.LEVELS or not cpu.level("x86-64-v2").runs_on(cpu.host()), reason="not x86")
def test_object_code_for_another_level(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    x = np.random.default_rng(0).standard_normal((40, 70))
    expected = np.tanh(x) + x @ x.T @ x
    program = tg.compile(lambda x: np.tanh(x) + x @ x.T @ x, x)
    program.save(tmp_path / "f.tgx", levels=["x86-64-v2"])
    monkeypatch.setattr(config, "cpu", "x86-64-v2")
    loaded = tg.load(tmp_path / "f.tgx", strict=True)
    monkeypatch.setattr(config, "cpu", "host")
    for _ in range(2):  # each calls its own kernels
        np.testing.assert_allclose(loaded(x), expected, rtol=1e-12)
        np.testing.assert_allclose(program(x), expected, rtol=1e-12)
    assert "gemm_f64" in saved.inspect(tmp_path / "f.tgx")
    assert "compiled for x86-64-v2 (runs here)" in saved.inspect(tmp_path / "f.tgx")
    with pytest.raises(ArgumentError, match="'x86-64-v9' is no level"):
        program.save(tmp_path / "g.tgx", levels=["x86-64-v9"])


# --- the command ------------------------------------------------------------------------------------------------------


def test_inspect_prints_signature_kernels_memory_and_graph(file: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["inspect", str(file)]) == 0
    out = capsys.readouterr().out
    for text in (
        "squares, ", "  pair[0]: f64[3, 4]\n", "  scale: f64\n", "  result['parts'][1][0]: f64[4, 3]\n",
        "kernels and calls, arena ", "library kernels pool ", "  def squares(",
    ):  # fmt: skip
        assert text in out, out
    assert main(["inspect", str(file.parent)]) == 1
    assert "cannot be read" in capsys.readouterr().err


def test_another_process_compiles_with_the_settings_of_this_one(monkeypatch: pytest.MonkeyPatch) -> None:
    chosen = {"threads": 3, "fast_math": True, "epilogues": False, "winograd": 2, "cpu": "x86-64-v2"}
    for name, value in chosen.items():
        monkeypatch.setattr(config, name, value)
    script = f"from tracegrad.config import config; print({{n: getattr(config, n) for n in {list(chosen)}}})"
    environment = child_environment(artefact.PACKAGE)
    done = subprocess.run([sys.executable, "-c", script], env=environment, capture_output=True, text=True, check=True)
    assert eval(done.stdout) == chosen
