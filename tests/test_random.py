"""Random numbers: known answers, reproducibility, distributions."""

from __future__ import annotations

import numpy as np
import pytest

import tracegrad as tg
from tracegrad import random
from tracegrad.errors import ArgumentError, DTypeError, ShapeError
from tracegrad.ops.random import threefry

N = 200_000
KNOWN = [  # Random123, threefry2x32 with 20 rounds: key, counter, block
    ((0, 0), (0, 0), (0x6B200159, 0x99BA4EFE)),
    ((0xFFFFFFFF, 0xFFFFFFFF), (0xFFFFFFFF, 0xFFFFFFFF), (0x1CB996FC, 0xBB002BE7)),
    ((0x13198A2E, 0x03707344), (0x243F6A88, 0x85A308D3), (0xC4923A9C, 0x483DF7A0)),
]


@pytest.mark.parametrize(("key", "counter", "block"), KNOWN)
def test_threefry_known_answers(key, counter, block):
    words = [np.array(v, np.uint32) for v in (*key, *counter)]
    with np.errstate(over="ignore"):
        assert tuple(int(w) for w in threefry(*words)) == block


def test_first_bits_are_the_known_block():
    assert int(random.bits(np.zeros(2, np.uint32))) == 0x6B200159
    bits = tg.jit(lambda key: random.bits(key, (3,)))
    assert int(bits(np.zeros(2, np.uint32))[0]) == 0x6B200159


def test_keys():
    assert random.key(5).tolist() == [0, 5] and random.key(2**32 + 1).tolist() == [1, 1]
    assert random.key(-1).tolist() == [2**32 - 1] * 2
    children = random.split(random.key(0), 1000)
    assert children.shape == (1000, 2) and children.dtype == np.uint32
    folded = np.stack([random.fold_in(random.key(0), i) for i in range(1000)])
    everything = np.concatenate([children, folded])
    assert len(np.unique(everything, axis=0)) == 2000
    ones = np.unpackbits(everything.view(np.uint8)).mean()
    assert abs(ones - 0.5) < 0.005
    for wrong in ("a", 1.5, 2**64, None):
        with pytest.raises(ArgumentError, match="not an integer of up to 64 bits"):
            random.key(wrong)
    with pytest.raises(DTypeError, match=r"the key int64\[2\] is not u32\[2\]"):
        random.uniform(np.array([1, 2]))


def test_flipping_one_bit_of_the_data_changes_half_of_the_key():
    base = random.fold_in(random.key(1), 12345)
    for bit in range(0, 64, 7):
        other = random.fold_in(random.key(1), 12345 ^ (1 << bit))
        flipped = np.unpackbits((base ^ other).view(np.uint8)).sum()
        assert 16 <= flipped <= 48


def draws(key, n):
    return {
        "split": random.split(key, 3),
        "fold_in": random.fold_in(key, n),
        "key": random.key(n),
        "bits": random.bits(key, (2, 3)),
        "uniform": random.uniform(key, (5,)),
        "uniform32": random.uniform(key, (5,), np.float32, -1.0, 3.0),
        "bernoulli": random.bernoulli(key, 0.3, (50,)),
        "randint": random.randint(key, -5, 5, (50,)),
        "permutation": random.permutation(key, 9),
        "choice": random.choice(key, 5, (20,), p=np.array([1.0, 2.0, 3.0, 0.0, 1.0])),
    }


@pytest.mark.parametrize("seed", [0, 2**40 + 3])
def test_compiled_draws_are_the_eager_ones_bit_for_bit(seed):
    compiled = tg.jit(draws)
    key = random.key(seed)
    for n in (3, -7):
        expected, found = draws(key, n), compiled(key, n)
        for name, value in expected.items():
            np.testing.assert_array_equal(found[name], value, err_msg=name)
            assert found[name].dtype == value.dtype, name
    assert compiled.traces == 1


def test_compiled_normal_agrees_to_rounding():
    key = random.key(3)
    for dtype, tolerance in ((np.float32, 2e-6), (np.float64, 1e-12)):
        found = tg.jit(lambda k, dtype=dtype: random.normal(k, (1000,), dtype))(key)
        np.testing.assert_allclose(found, random.normal(key, (1000,), dtype), atol=tolerance, rtol=tolerance)


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("seed", [0, 1, 2])
def test_uniform_distribution(seed, dtype):
    u = random.uniform(random.key(seed), (N,), dtype)
    assert u.dtype == dtype and u.min() >= 0 and u.max() < 1
    counts, _ = np.histogram(u, 100, (0, 1))
    chi2 = ((counts - N / 100) ** 2 / (N / 100)).sum()
    assert 99 - 5 * np.sqrt(198) < chi2 < 99 + 5 * np.sqrt(198)
    for lag in (1, 2, 7):
        assert abs(np.corrcoef(u[:-lag], u[lag:])[0, 1]) < 5 / np.sqrt(N)
    v = random.uniform(random.key(seed), (1000,), dtype, low=-2.0, high=5.0)
    assert v.dtype == dtype and -2 <= v.min() < -1.9 and 4.9 < v.max() <= 5


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("seed", [0, 1, 2])
def test_normal_distribution(seed, dtype):
    x = random.normal(random.key(seed), (N,), dtype).astype(np.float64)
    deviations = {1: 1, 2: np.sqrt(2), 3: np.sqrt(15), 4: np.sqrt(96)}
    for power, moment in {1: 0, 2: 1, 3: 0, 4: 3}.items():
        assert abs((x**power).mean() - moment) < 5 * deviations[power] / np.sqrt(N)
    assert 4 < np.abs(x).max() < 7
    assert abs((np.abs(x) < 1).mean() - 0.682689) < 5 * 0.47 / np.sqrt(N)
    assert abs(np.corrcoef(x[:-1], x[1:])[0, 1]) < 5 / np.sqrt(N)


def test_streams_of_one_key_are_independent():
    key = random.key(4)
    u = random.uniform(key, (N,), np.float32)
    children = random.split(key, N)[:, 0] / 2.0**32
    assert abs(np.corrcoef(u, children)[0, 1]) < 5 / np.sqrt(N)
    a, b = (random.uniform(k, (N,)) for k in random.split(key))
    assert abs(np.corrcoef(a, b)[0, 1]) < 5 / np.sqrt(N)


def test_bernoulli():
    for p in (0.0, 0.1, 0.5, 1.0):
        assert abs(random.bernoulli(random.key(0), p, (N,)).mean() - p) <= 5 * np.sqrt(p * (1 - p) / N)
    with pytest.raises(ArgumentError, match=r"p is 1\.5, not a probability"):
        random.bernoulli(random.key(0), 1.5)
    assert tg.jit(lambda k, p: random.bernoulli(k, p, (N,)))(random.key(0), 0.1).mean() == pytest.approx(0.1, abs=0.01)


def test_randint():
    x = random.randint(random.key(0), -3, 4, (N,))
    counts = np.bincount(x + 3, minlength=7)
    assert x.dtype == np.int64 and len(counts) == 7 and ((counts - N / 7) ** 2 / (N / 7)).sum() < 6 + 5 * np.sqrt(12)
    assert random.randint(random.key(0), 0, 256, (1000,), np.uint8).dtype == np.uint8
    with pytest.raises(ArgumentError, match=r"no integer lies in \[3, 3\)"):
        random.randint(random.key(0), 3, 3)
    with pytest.raises(ArgumentError, match=r"\[0, 257\) does not fit uint8"):
        random.randint(random.key(0), 0, 257, (), np.uint8)


def test_permutation_and_choice():
    p = random.permutation(random.key(0), 1000)
    assert sorted(p) == list(range(1000)) and abs(np.corrcoef(p, np.arange(1000))[0, 1]) < 0.16
    orders = [tuple(random.permutation(random.key(i), 3)) for i in range(1200)]
    assert len(set(orders)) == 6 and min(orders.count(o) for o in set(orders)) > 140
    rows = np.arange(12).reshape(6, 2)
    shuffled = random.permutation(random.key(0), rows)
    assert sorted(map(tuple, shuffled.tolist())) == sorted(map(tuple, rows.tolist()))
    distinct = random.choice(random.key(0), 10, (2, 5), replace=False)
    assert sorted(distinct.ravel()) == list(range(10))
    assert set(np.unique(random.choice(random.key(0), np.array([3, 5]), (50,)))) == {3, 5}
    counts = np.bincount(random.choice(random.key(0), 3, (N,), p=[1, 2, 1])) / N
    np.testing.assert_allclose(counts, [0.25, 0.5, 0.25], atol=0.006)
    with pytest.raises(ShapeError, match="11 distinct ones of 10"):
        random.choice(random.key(0), 10, (11,), replace=False)
    with pytest.raises(ShapeError, match="scalar array has no rows"):
        random.permutation(random.key(0), np.array(1.0))


def test_empty_and_scalar_shapes():
    assert random.normal(random.key(0), (0, 3)).shape == (0, 3)
    assert np.shape(random.uniform(random.key(0))) == ()
    assert random.permutation(random.key(0), 0).shape == (0,)
