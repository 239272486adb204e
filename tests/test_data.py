"""Batches, normalisation, digits and IDX files."""

from __future__ import annotations

import gzip
import struct
import sys

import numpy as np
import pytest

from tracegrad import data, random
from tracegrad.data.idx import IdxError
from tracegrad.errors import ArgumentError, ShapeError


def test_batches_cover_every_row_once_and_keep_rows_together():
    x, y = np.arange(20.0).reshape(10, 2), np.arange(10)
    seen = []
    for bx, by in data.batches((x, y), 3, seed=1, drop_last=False):
        np.testing.assert_array_equal(bx[:, 0], 2 * by)
        seen += by.tolist()
    assert sorted(seen) == list(range(10)) and seen != list(range(10))
    assert [len(b) for (b,) in data.batches(y, 3)] == [3, 3, 3]
    assert [b.tolist() for (b,) in data.batches(y, 4, shuffle=False)] == [[0, 1, 2, 3], [4, 5, 6, 7]]


def order(**more):
    return np.concatenate([b for (b,) in data.batches(np.arange(100), 10, **more)]).tolist()


def test_order_depends_on_seed_and_epoch_alone():
    assert order(seed=3, epoch=2) == order(seed=3, epoch=2) == order(key=random.key(3), epoch=2)
    assert order(seed=3, epoch=2) != order(seed=3, epoch=1) != order(seed=4, epoch=1)


def test_memory_maps_are_read_batch_by_batch(tmp_path):
    stored = np.lib.format.open_memmap(tmp_path / "x.npy", "w+", np.float32, (50, 4))
    stored[:] = np.arange(200).reshape(50, 4)
    mapped = np.load(tmp_path / "x.npy", mmap_mode="r")
    plain = [b for (b,) in data.batches(np.array(stored), 7, seed=2)]
    for (batch,), expected in zip(data.batches(mapped, 7, seed=2), plain, strict=True):
        assert type(batch) is np.ndarray and not isinstance(batch, np.memmap)
        np.testing.assert_array_equal(batch, expected)


def test_batch_errors_come_at_the_call():
    with pytest.raises(ShapeError, match=r"\(3,\) and \(4,\) differ in length"):
        data.batches((np.ones(3), np.ones(4)), 2)
    with pytest.raises(ShapeError, match="3 rows do not fill one batch of 4"):
        data.batches(np.ones(3), 4)
    with pytest.raises(ArgumentError, match="batch_size is 0"):
        data.batches(np.ones(3), 0)


def test_normalise():
    x = np.random.default_rng(0).normal(3, 2, (50, 3, 4, 4)).astype(np.float32)
    x[:, 1] = 5
    y, mean, deviation = data.normalise(x, axis=(0, 2, 3), eps=0.1)
    assert y.dtype == np.float32 and mean.shape == (1, 3, 1, 1)
    np.testing.assert_allclose(y[:, [0, 2]].mean((0, 2, 3)), 0, atol=1e-5)
    np.testing.assert_allclose(y[:, [0, 2]].std((0, 2, 3)), 1, rtol=1e-5)
    assert (y[:, 1] == 0).all() and deviation[0, 1, 0, 0] == np.float32(0.1)
    fit = data.Normaliser.fit(x, (0, 2, 3))
    np.testing.assert_allclose(fit(x[0]), fit(x)[0])
    np.testing.assert_allclose(fit.inverse(fit(x)), x, atol=1e-5)
    assert data.normalise(np.arange(10, dtype=np.uint8))[0].dtype == np.float32
    with pytest.raises(ShapeError, match="axis 5 does not fit"):
        data.normalise(x, 5)


def test_a_mapped_file_is_normalised_part_by_part(tmp_path, monkeypatch):
    x = np.random.default_rng(0).normal(3, 2, (50, 3, 4)).astype(np.float32)
    np.save(tmp_path / "x.npy", x)
    mapped = np.load(tmp_path / "x.npy", mmap_mode="r")
    whole = data.Normaliser.fit(x, (0, 2))
    monkeypatch.setattr(sys.modules["tracegrad.data.normalise"], "PART", 7 * 12)
    fit = data.Normaliser.fit(mapped, (0, -1))
    np.testing.assert_allclose(fit.mean, whole.mean, rtol=1e-6)
    np.testing.assert_allclose(fit.deviation, x.std((0, 2), keepdims=True), rtol=1e-6)
    np.testing.assert_allclose(fit(x[3]), ((x - fit.mean) / fit.deviation)[3])
    assert data.Normaliser.fit(x, 2).mean.shape == (50, 3, 1)


def test_digits_are_split_without_overlap():
    pytest.importorskip("sklearn")
    split = data.digits(0.2, seed=1)
    assert split.train_x.shape == (1438, 1, 8, 8) and split.test_x.shape == (359, 1, 8, 8)
    assert split.train_x.dtype == np.float32 and split.test_y.dtype == np.int64
    assert split.train_x.min() >= 0 and split.train_x.max() == 1 and set(split.test_y) == set(range(10))
    again = data.digits(0.2, seed=1)
    np.testing.assert_array_equal(split.test_x, again.test_x)
    assert not np.array_equal(split.test_x, data.digits(0.2, seed=2).test_x)


def idx_bytes(array, code):
    return (
        struct.pack(f">BBBB{array.ndim}I", 0, 0, code, array.ndim, *array.shape)
        + array.astype(array.dtype.newbyteorder(">")).tobytes()
    )


@pytest.mark.parametrize(
    ("dtype", "code"), [(np.uint8, 8), (np.int16, 11), (np.int32, 12), (np.float32, 13), (np.float64, 14)]
)
@pytest.mark.parametrize("zipped", [False, True])
def test_idx_files_round_trip(tmp_path, dtype, code, zipped):
    array = (np.arange(24) - (0 if dtype == np.uint8 else 5)).reshape(2, 3, 4).astype(dtype)
    raw = idx_bytes(array, code)
    (tmp_path / "x").write_bytes(gzip.compress(raw) if zipped else raw)
    found = data.read_idx(tmp_path / "x")
    assert found.dtype == dtype and found.dtype.isnative and found.flags.writeable
    np.testing.assert_array_equal(found, array)


def test_damaged_idx_files_are_refused(tmp_path):
    raw = idx_bytes(np.arange(24, dtype=np.uint8).reshape(4, 6), 8)
    for content, text in [
        (b"PK\x03\x04rest", "does not start with an IDX header"),
        (b"", "does not start with an IDX header"),
        (b"\0\0\x07\x01" + raw[4:], "element type 0x07"),
        (raw[:9], "ends at byte 9, inside its header of 12 bytes"),
        (raw[:-1], r"has 35 bytes, but its header \(4, 6\) uint8 asks for 36"),
        (raw + b"x", "has 37 bytes"),
        (gzip.compress(raw)[:-9], "is not a whole gzip file"),
    ]:
        (tmp_path / "x").write_bytes(content)
        with pytest.raises(IdxError, match=text):
            data.read_idx(tmp_path / "x")


def test_a_mapped_idx_file_gives_native_batches(tmp_path):
    array = np.arange(40, dtype=np.float32).reshape(10, 4)
    (tmp_path / "x").write_bytes(idx_bytes(array, 13))
    mapped = data.read_idx(tmp_path / "x", mmap=True)
    assert isinstance(mapped, np.memmap) and mapped.shape == (10, 4) and not mapped.flags.writeable
    for shuffle in (False, True):
        rows = np.concatenate([b for (b,) in data.batches(mapped, 5, shuffle=shuffle)])
        assert rows.dtype.isnative and type(rows) is np.ndarray
        np.testing.assert_array_equal(rows[np.argsort(rows[:, 0])], array)
    (tmp_path / "x").write_bytes(gzip.compress(idx_bytes(array, 13)))
    with pytest.raises(IdxError, match="is gzipped, and cannot be mapped"):
        data.read_idx(tmp_path / "x", mmap=True)
    (tmp_path / "x").write_bytes(idx_bytes(array, 13)[:-1])
    with pytest.raises(IdxError, match="has 171 bytes"):
        data.read_idx(tmp_path / "x", mmap=True)


@pytest.mark.parametrize("zipped", [False, True])
def test_random_damage_never_gives_another_error(tmp_path, zipped):
    rng = np.random.default_rng(0)
    raw = idx_bytes(np.arange(24, dtype=np.int16).reshape(4, 6), 11)
    whole = gzip.compress(raw) if zipped else raw
    messages = []
    for _ in range(200):
        damaged = bytearray(whole)
        for at in rng.integers(0, len(whole), rng.integers(1, 4)):
            damaged[at] = rng.integers(256)
        if rng.random() < 0.3:
            damaged = damaged[: rng.integers(1, len(whole) + 1)]
        (tmp_path / "x").write_bytes(damaged)
        try:
            data.read_idx(tmp_path / "x")
        except IdxError as error:
            messages.append(str(error))
    assert len(messages) > 60 and all("\n  fix: " in message for message in messages)
