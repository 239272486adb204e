"""Options of the test run, and the same random numbers in every run, whichever tests ran before."""

from __future__ import annotations

import random
import sys

import numpy as np
import pytest
from hypothesis import settings

from tracegrad import nn

settings.register_profile("repeatable", derandomize=True, database=None, deadline=None)
settings.load_profile("repeatable")


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--update-golden", action="store_true", help="write the files of printed programs anew")


@pytest.fixture(autouse=True)
def seeds() -> None:
    """Start every source of random numbers that a process shares at a known place."""
    random.seed(0)
    np.random.seed(0)
    nn.seed(0)
    if "torch" in sys.modules:
        sys.modules["torch"].manual_seed(0)
