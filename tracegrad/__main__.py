"""The command line: `python -m tracegrad demo`, `inspect`, `cache`, `warmup`."""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Sequence
from pathlib import Path

from tracegrad.api import saved
from tracegrad.config import config
from tracegrad.demo import Options, run
from tracegrad.errors import TracegradError
from tracegrad.runtime import building, cache, library
from tracegrad.runtime.sealed import SealError


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
    demo.set_defaults(run=run_demo)
    inspect = commands.add_parser("inspect", help="describe a program that compiled.save() wrote")
    inspect.add_argument("path", type=Path)
    inspect.set_defaults(run=run_inspect)
    entries = commands.add_parser("cache", help="list what the cache on disk holds")
    entries.add_argument("--verify", action="store_true", help="read every entry; exit with 1 if one is damaged")
    entries.add_argument("--clear", action="store_true", help="delete every entry")
    entries.set_defaults(run=run_cache)
    warmup = commands.add_parser("warmup", help="compile all library kernels into the cache")
    warmup.set_defaults(run=run_warmup)
    return found


def positive(text: str) -> int:
    """Read a number of 1 or more."""
    value = int(text)
    if value < 1:
        raise argparse.ArgumentTypeError(f"{value} is not 1 or more")
    return value


def run_demo(given: argparse.Namespace) -> int:
    run(Options(given.epochs, given.batch, given.seed, given.smoke, given.plot))
    return 0


def run_inspect(given: argparse.Namespace) -> int:
    print(saved.inspect(given.path))
    return 0


def run_cache(given: argparse.Namespace) -> int:
    """List the entries, the one used last first; damaged ones are marked when they are verified."""
    if given.clear:
        removed, left = cache.clear()
        print(f"{removed} files deleted from {config.cache_dir}" + (f", {left} could not be" if left else ""))
        return int(left > 0)
    found = cache.entries()
    damaged = 0
    for entry in found:
        try:
            content = entry.read()
            about = f"{content.get('about', '')}, for {content.get('cpu', '')}"
        except SealError as error:
            damaged += 1
            about = f"damaged, will be made again: {error}"
        except OSError:
            continue  # another process deleted it
        used = time.strftime("%Y-%m-%d %H:%M", time.localtime(entry.used))
        print(f"{entry.path.stem}  {entry.size:>9}  {used}  {about}")
    total = sum(e.size for e in found) / 2**20
    print(f"{len(found)} entries, {total:.1f} of {config.cache_bytes / 2**20:.0f} MiB in {config.cache_dir}")
    if given.verify:
        print(f"{len(found) - damaged} sound, {damaged} damaged")
    return int(given.verify and damaged > 0)


def run_warmup(given: argparse.Namespace) -> int:
    """Compile what is not in the cache."""
    if not config.cache:
        print("the cache is switched off (TRACEGRAD_CACHE=0): there is nowhere to keep library kernels")
        return 1
    began = time.perf_counter()
    names = building.families()
    missing = {f for f in names if not library.is_kept(f)}
    with building.Workers() as workers:
        building.start(workers, names)
        for family in names:
            at = time.perf_counter()
            if family in missing:
                building.finish(family)
            if not library.is_kept(family):
                print(f"{config.cache_dir} cannot be written: the library kernels are not kept")
                return 1
            spent = f"{time.perf_counter() - at:.2f} s"
            print(f"{family:20} " + (spent if family in missing else "there"), flush=True)
    print(f"done in {time.perf_counter() - began:.1f} s, kept in {config.cache_dir}")
    return 0


def main(arguments: Sequence[str] | None = None) -> int:
    """Run a command; return the exit status."""
    given = parser().parse_args(arguments)
    try:
        return int(given.run(given))
    except TracegradError as error:
        print(error, file=sys.stderr)
        return 1


if __name__ == "__main__":
    sys.exit(main())
