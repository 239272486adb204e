"""Random programs on tensors agree with PyTorch, line by line: see `random_tape`.

    RANDOM_TAPE=5000 pytest tests/test_random_tape.py
"""

from __future__ import annotations

import os
from collections.abc import Iterator

import pytest
from random_tape import Difference, Program, run_program

import tracegrad as tg

torch = pytest.importorskip("torch")

PROGRAMS = int(os.environ.get("RANDOM_TAPE", "150"))
CHUNK = 25


@pytest.fixture(autouse=True)
def _float64() -> Iterator[None]:
    torch.set_default_dtype(torch.float64)
    yield
    torch.set_default_dtype(torch.float32)


@pytest.mark.parametrize("start", range(0, PROGRAMS, CHUNK))
def test_programs_agree_with_pytorch(start: int) -> None:
    lines = 0
    for seed in range(start, start + CHUNK):
        lines += len(run_program(seed, tg, torch).lines)
    assert lines > 5 * CHUNK


@pytest.mark.parametrize(
    "line", ["v1 = T.tensor([1.0]) * (2.0 if T is not np and hasattr(T, '_tg') else 3.0)", "assert hasattr(T, '_tg')"]
)
def test_a_difference_is_found(line: str) -> None:
    with pytest.raises(Difference, match="seed 0"):
        Program(0, tg, torch).run(line)
