"""The 1797 handwritten digits that scikit-learn carries: real data that need no download."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from tracegrad.errors import TracegradError
from tracegrad.random import key as random_key
from tracegrad.random import permutation


@dataclass(frozen=True, eq=False)
class Split:
    """Training and held-out examples."""

    train_x: Any
    train_y: Any
    test_x: Any
    test_y: Any


def digits(test_fraction: float = 0.2, *, seed: int = 0, dtype: Any = np.float32) -> Split:
    """Return the digits, shuffled by `seed` and split: images [n, 1, 8, 8] from 0 to 1, labels int64 from 0 to 9.

    The data are the test part of the UCI Optical Recognition of Handwritten Digits set. Raises TracegradError when
    scikit-learn is not installed.

    >>> digits().train_x.shape
    (1438, 1, 8, 8)
    """
    try:
        from sklearn.datasets import load_digits
    except ImportError:
        raise TracegradError(
            "digits: scikit-learn, which carries the data, is not installed", fix='pip install "tracegrad[examples]"'
        ) from None
    found = load_digits()
    x = (found.images[:, None] / 16.0).astype(dtype)
    y = found.target.astype(np.int64)
    order = np.asarray(permutation(random_key(seed), len(y)))
    held = round(test_fraction * len(y))
    test, train = order[:held], order[held:]
    return Split(x[train], y[train], x[test], y[test])
