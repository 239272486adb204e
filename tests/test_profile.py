"""Profiles: cycles become microseconds by a clock that is read around the same runs."""

from __future__ import annotations

import numpy as np
import pytest

from tracegrad.runtime import profile


@pytest.mark.parametrize("rounds", [1, 2, 50])
def test_cycles_become_microseconds(rounds: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """A machine of 2 GHz whose program has steps of 3 and 7 microseconds, slower in its first runs."""
    stamps, now, runs = np.zeros(3, np.int64), [5.0], [0]

    def run() -> None:
        slower = 10.0 if runs[0] < 3 else 1.0
        runs[0] += 1
        for i, microseconds in enumerate((0.0, 3.0 * slower, 7.0 * slower)):
            now[0] += microseconds / 1e6
            stamps[i] = round(now[0] * 2e9)

    monkeypatch.setattr(profile.time, "perf_counter", lambda: now[0])
    np.testing.assert_allclose(profile.medians_of(run, stamps, rounds), [3.0, 7.0], rtol=1e-3)
