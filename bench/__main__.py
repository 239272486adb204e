"""The command line: `python -m bench steps [mlp lenet cnn resnet gpt] [--peers torch,inductor,jax]`."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence

from bench.cases import CASES
from bench.steps_report import PEERS, report


def peers(text: str) -> list[str]:
    """Read a list of libraries; an empty one compares with nothing."""
    names = [name for name in text.split(",") if name]
    if unknown := [name for name in names if name not in PEERS]:
        raise argparse.ArgumentTypeError(f"{', '.join(unknown)} is not one of {', '.join(PEERS)}")
    return names


def case(text: str) -> str:
    """Read the name of a case."""
    if text not in CASES:
        raise argparse.ArgumentTypeError(f"{text} is not one of {', '.join(CASES)}")
    return text


def main(arguments: Sequence[str] | None = None) -> int:
    """Run a command; return the exit status."""
    parser = argparse.ArgumentParser(prog="bench", description="Measure tracegrad, alone or beside other libraries.")
    commands = parser.add_subparsers(dest="command", required=True)
    steps = commands.add_parser("steps", help="whole training steps")
    steps.add_argument(
        "cases", nargs="*", type=case, metavar="case", help=f"some of {', '.join(CASES)}; all by default"
    )
    steps.add_argument("--peers", type=peers, default=[], help="torch,inductor,jax or some of them")
    steps.add_argument("--peer-python", default=sys.executable, help="the interpreter that has the peers installed")
    steps.add_argument("--rounds", type=int, default=7)
    steps.add_argument("--seconds", type=float, default=0.4, help="length of one library's turn")
    given = parser.parse_args(arguments)
    return report(given.cases or CASES, given.peers, given.peer_python, given.rounds, given.seconds)


if __name__ == "__main__":
    sys.exit(main())
