"""The command line.

python -m bench steps [mlp lenet cnn resnet gpt] [--peers torch,inductor,jax]
python -m bench loops [logistic-forward rk4-gradient ...] [--peers numba,jax,torch]
python -m bench programs [option-prices kmeans ...] [--peers numpy,numba,jax]
python -m bench contractions [gemm resnet18 weight tiny-4096x8 ...] [--peers torch,jax,numpy]
python -m bench start [mlp lenet ...] [--peers jax,inductor,torch,pytensor,autograd] [--rounds 3]
python -m bench calls [flat-2 dict-200 ...] [--peers jax,inductor,pytensor,autograd]
python -m bench tape [chain mlp cnn] [--peers torch,autograd]
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable, Iterable, Sequence
from typing import Any

from bench import (
    calls_cases,
    calls_report,
    contractions_cases,
    contractions_report,
    loops_cases,
    loops_report,
    programs_cases,
    programs_report,
    start_report,
    steps_report,
    tape_cases,
    tape_report,
)
from bench.cases import CASES


def some_of(known: Iterable[str]) -> Callable[[str], list[str]]:
    """Return a reader of a list of names with commas; an empty one is allowed."""

    def read(text: str) -> list[str]:
        return [one(name) for name in text.split(",") if name]

    one = one_of(known)
    return read


def one_of(known: Iterable[str]) -> Callable[[str], str]:
    """Return a reader of one name."""

    def read(text: str) -> str:
        if text not in known:
            raise argparse.ArgumentTypeError(f"{text} is not one of {', '.join(known)}")
        return text

    return read


def add(commands: Any, name: str, help: str, cases: Iterable[str], peers: Sequence[str]) -> None:
    """Add a command that measures some cases, alone or beside some peers."""
    parser = commands.add_parser(name, help=help)
    several = f"some of {', '.join(cases)}; all by default"
    parser.add_argument("cases", nargs="*", type=one_of(cases), metavar="case", help=several)
    parser.add_argument("--peers", type=some_of(peers), default=[], help=f"{','.join(peers)} or some of them")
    parser.add_argument("--peer-python", default=sys.executable, help="the interpreter that has the peers installed")
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--seconds", type=float, default=0.4, help="length of one library's turn")


def main(arguments: Sequence[str] | None = None) -> int:
    """Run a command; return the exit status."""
    parser = argparse.ArgumentParser(prog="bench", description="Measure tracegrad, alone or beside other libraries.")
    commands = parser.add_subparsers(dest="command", required=True)
    add(commands, "steps", "whole training steps", CASES, steps_report.PEERS)
    add(commands, "start", "whole processes, to the end of their first step", CASES, start_report.PEERS)
    add(commands, "calls", "what a call costs", calls_cases.CASES, calls_report.PEERS)
    add(commands, "loops", "loops and their gradients", loops_cases.CASES, loops_report.PEERS)
    add(commands, "programs", "plain NumPy programs", programs_cases.CASES, programs_report.PEERS)
    contractions = (*contractions_cases.GROUPS, *contractions_cases.DIRECTIONS, *contractions_cases.CASES)
    add(commands, "contractions", "matrix products and convolutions", contractions, contractions_report.PEERS)
    add(commands, "tape", "the eager tape, op by op", tape_cases.CASES, tape_report.PEERS)
    given = parser.parse_args(arguments)
    known, report = {
        "steps": (CASES, steps_report.report),
        "start": (CASES, start_report.report),
        "calls": (calls_cases.CASES, calls_report.report),
        "loops": (tuple(loops_cases.CASES), loops_report.report),
        "programs": (tuple(programs_cases.CASES), programs_report.report),
        "contractions": (contractions_cases.GROUPS, contractions_report.report),
        "tape": (tape_cases.CASES, tape_report.report),
    }[given.command]
    return report(given.cases or known, given.peers, given.peer_python, given.rounds, given.seconds)


if __name__ == "__main__":
    sys.exit(main())
