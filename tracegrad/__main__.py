"""The command line: `python -m tracegrad demo`."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

from tracegrad.demo import Options, run
from tracegrad.errors import TracegradError


def parser() -> argparse.ArgumentParser:
    """Describe the arguments."""
    found = argparse.ArgumentParser(prog="tracegrad", description="Gradients for NumPy code, compiled.")
    commands = found.add_subparsers(dest="command", required=True)
    demo = commands.add_parser("demo", help="train a small network on handwritten digits")
    demo.add_argument("--smoke", action="store_true", help="a few seconds instead of the whole training")
    demo.add_argument("--epochs", type=positive, default=Options.epochs)
    demo.add_argument("--batch", type=positive, default=Options.batch)
    demo.add_argument("--seed", type=int, default=Options.seed)
    demo.add_argument("--plot", type=Path, default=Options.plot, help="where to write the loss curve")
    demo.add_argument("--no-plot", action="store_const", const=None, dest="plot")
    return found


def positive(text: str) -> int:
    """Read a number of 1 or more."""
    value = int(text)
    if value < 1:
        raise argparse.ArgumentTypeError(f"{value} is not 1 or more")
    return value


def main(arguments: Sequence[str] | None = None) -> int:
    """Run a command; return the exit status."""
    given = parser().parse_args(arguments)
    try:
        run(Options(given.epochs, given.batch, given.seed, given.smoke, given.plot))
    except TracegradError as error:
        print(error, file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
