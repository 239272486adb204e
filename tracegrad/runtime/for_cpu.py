"""Compiling a graph for another CPU, in a process of its own: `python -m tracegrad.runtime.for_cpu asked made`.

`asked` and `made` are files of `runtime.artefact`; TRACEGRAD_CPU says which CPU. Nothing of the result is run here.
"""

from __future__ import annotations

import sys
from pathlib import Path

from tracegrad.codegen.cpu import target
from tracegrad.runtime import artefact
from tracegrad.runtime.compiling import compile_graph


def main(asked: Path, made: Path) -> None:
    """Compile the graph of one file into another."""
    found = artefact.read(asked)
    facts, data, _, _ = compile_graph(found.graph(), found.donate, found.layouts, {}, load=False)
    found.builds = [artefact.Build(target(), facts.as_json(), data, artefact.libraries_of(facts.families))]
    artefact.save(found, made)


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2]))
