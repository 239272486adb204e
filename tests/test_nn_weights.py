"""Weights in files: whole or not at all, damage is told, PyTorch's files load."""

from __future__ import annotations

import os
import resource
import signal
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from tracegrad import nn, random
from tracegrad.errors import DTypeError, TracegradError
from tracegrad.nn.loading import StateDictError
from tracegrad.nn.weights import WeightsError

safetensors = pytest.importorskip("safetensors.numpy")
KEY = random.key(0)


def network(width=6):
    return nn.Sequential(nn.Linear(3, width, key=KEY), nn.BatchNorm1d(width), nn.Linear(width, 2, key=KEY))


def normal(seed, *shape, dtype=np.float32):
    return np.random.default_rng(seed).normal(size=shape).astype(dtype)


def test_round_trip(tmp_path):
    model = network()
    nn.save_file(model, tmp_path / "m.safetensors", {"epoch": "3"})
    again = network().load_state_dict({n: np.zeros_like(v) for n, v in model.state_dict().items()})
    again = again.load_state_dict(nn.load_file(tmp_path / "m.safetensors"))
    for name, value in again.state_dict().items():
        np.testing.assert_array_equal(value, model.state_dict()[name])
        assert value.flags.writeable and value.dtype.isnative
    with safetensors.safe_open(tmp_path / "m.safetensors", "np") as file:
        assert file.metadata() == {"epoch": "3"}
    assert [p.name for p in tmp_path.iterdir()] == ["m.safetensors"]


def test_every_dtype_order_and_size(tmp_path):
    arrays = {
        "transposed": normal(0, 3, 4).T, "strided": np.arange(10)[::3], "big": np.arange(3, dtype=">i4"),
        "scalar": np.float64(2.5), "none": np.zeros((0, 3), np.float16), "flags": np.array([True, False]),
    }  # fmt: skip
    nn.save_file(arrays, tmp_path / "m")
    found = nn.load_file(tmp_path / "m")
    assert list(found) == sorted(arrays)
    for name, value in arrays.items():
        np.testing.assert_array_equal(found[name], value)
        assert found[name].dtype == np.asarray(value).dtype.newbyteorder("=") and found[name].shape == np.shape(value)
    with pytest.raises(DTypeError, match="z is complex128, which safetensors cannot hold"):
        nn.save_file({"z": np.ones(2, complex)}, tmp_path / "m")
    assert list(nn.load_file(tmp_path / "m")) == sorted(arrays)


def test_bfloat16_becomes_float32(tmp_path):
    header = b'{"w":{"dtype":"BF16","shape":[2],"data_offsets":[0,4]}}'
    bits = (np.array([1.5, -3.0], np.float32).view(np.uint32) >> 16).astype("<u2")
    (tmp_path / "m").write_bytes(len(header).to_bytes(8, "little") + header + bits.tobytes())
    assert nn.load_file(tmp_path / "m")["w"].tolist() == [1.5, -3.0]


def test_damaged_files_are_refused(tmp_path):
    path = tmp_path / "m.safetensors"
    nn.save_file(network(), path)
    whole = path.read_bytes()
    for content in [b"", whole[:5], whole[:40], whole[:-1], whole + b"x", b"PK\x03\x04" * 20, whole[:8] + b"{" * 99]:
        path.write_bytes(content)
        with pytest.raises(WeightsError, match=r"m.safetensors of \d+ bytes is not a whole safetensors file"):
            nn.load_file(path)
    with pytest.raises(FileNotFoundError):
        nn.load_file(tmp_path / "missing")


@pytest.mark.parametrize("call", ["os.fsync", "os.replace"])
def test_a_save_that_fails_leaves_the_old_file(tmp_path, monkeypatch, call):
    path = tmp_path / "m.safetensors"
    nn.save_file(network(), path)
    before = path.read_bytes()

    def full(*_):
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(call, full)
        with pytest.raises(WeightsError) as caught:
            nn.save_file(network(7), path)
    assert "No space left on device); what was there is unchanged" in str(caught.value)
    assert path.read_bytes() == before and len(list(tmp_path.iterdir())) == 1


def test_a_short_write_leaves_the_old_file(tmp_path):
    path = tmp_path / "m.safetensors"
    nn.save_file(network(), path)
    before = path.read_bytes()
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (4096, hard))
    try:
        with pytest.raises(WeightsError, match="File too large"):
            nn.save_file({"w": np.zeros(10_000)}, path)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert path.read_bytes() == before and len(list(tmp_path.iterdir())) == 1


def test_a_killed_process_leaves_a_whole_file(tmp_path):
    path = tmp_path / "m.safetensors"
    script = (
        "import numpy as np\nfrom tracegrad import nn\nn = 0\nwhile True:\n"
        f"    n += 1\n    nn.save_file({{'w': np.full(300_000, n)}}, {str(path)!r})\n    print(n, flush=True)"
    )
    environment = {**os.environ, "PYTHONPATH": str(Path(nn.__file__).parents[2])}
    child = subprocess.Popen([sys.executable, "-c", script], env=environment, stdout=subprocess.PIPE, text=True)
    assert child.stdout is not None
    for _ in range(3):
        child.stdout.readline()
    child.send_signal(signal.SIGKILL)
    rest = child.stdout.read().split()
    child.wait()
    child.stdout.close()
    found = nn.load_file(path)["w"]
    assert (found == found[0]).all() and found[0] >= int(rest[-1] if rest else 3)


def test_symbolic_links_and_modes_are_kept(tmp_path):
    real, link = tmp_path / "real", tmp_path / "link"
    nn.save_file({"w": np.zeros(1)}, real)
    real.chmod(0o640)
    link.symlink_to(real)
    nn.save_file({"w": np.ones(1)}, link)
    assert link.is_symlink() and nn.load_file(real)["w"] == 1 and real.stat().st_mode & 0o777 == 0o640


def test_without_safetensors_the_fix_is_told(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "safetensors.numpy", None)
    for call in (lambda: nn.save_file({}, tmp_path / "m"), lambda: nn.load_file(tmp_path / "m")):
        with pytest.raises(TracegradError, match=r'safetensors is not installed\n  fix: pip install "tracegrad\[weig'):
            call()


def test_a_file_of_another_model_lists_what_differs(tmp_path):
    nn.save_file(network(7), tmp_path / "m")
    with pytest.raises(StateDictError, match=r"of another shape: 0.weight f32\[7, 3\] for f32\[6, 3\], 0.bias"):
        network().load_state_dict(nn.load_file(tmp_path / "m"))


# --- PyTorch ----------------------------------------------------------------------------------------------------------
def test_files_of_pytorch_give_the_same_outputs(tmp_path):
    torch = pytest.importorskip("torch")
    tensors = pytest.importorskip("safetensors.torch")
    t = torch.nn
    theirs = t.Sequential(
        t.Conv2d(2, 4, 3, padding=1), t.BatchNorm2d(4), t.ReLU(), t.MaxPool2d(2), t.GroupNorm(2, 4), t.Flatten(2),
        t.LayerNorm(16), t.GRU(16, 5, 2, batch_first=True),
    )  # fmt: skip
    ours = nn.Sequential(
        nn.Conv2d(2, 4, 3, padding=1), nn.BatchNorm2d(4), nn.ReLU(), nn.MaxPool2d(2), nn.GroupNorm(2, 4),
        nn.Flatten(2), nn.LayerNorm(16), nn.GRU(16, 5, 2, batch_first=True),
    )  # fmt: skip
    theirs[:2](torch.tensor(normal(0, 4, 2, 8, 8)) * 3)
    tensors.save_file(theirs.state_dict(), tmp_path / "theirs")
    loaded = ours.load_state_dict(nn.load_file(tmp_path / "theirs"))
    x = normal(1, 3, 2, 8, 8)
    y, h = theirs.eval()(torch.tensor(x))
    for found, expected in zip(loaded(x), (y, h), strict=True):
        np.testing.assert_allclose(found, expected.detach().numpy(), rtol=2e-5, atol=2e-6)
    nn.save_file(loaded, tmp_path / "ours")
    assert theirs.load_state_dict(tensors.load_file(tmp_path / "ours")).missing_keys == []
