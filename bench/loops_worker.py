"""One library in one process: answers commands, one line each, and is idle in between.

start CASE SIZE    import the library, make the program, run it once -> {"import", "first", "values", "version"}
values CASE SIZE   -> {"values"}: the results of the same case at another size
burst SECONDS      -> {"step"}: the median seconds of a run over about that long
fresh CASE SIZE    -> {"compile"}: seconds of the first run of a new program, less those of its second run
"""

from __future__ import annotations

import importlib
import json
import os
import statistics
import sys
import time
import traceback
from collections.abc import Mapping
from types import ModuleType
from typing import Any

import numpy as np

from bench.loops_cases import Program, Refused, Values

MODULES = {
    "tracegrad": "bench.loops",
    "numba": "bench.peers.numba_loops",
    "jax": "bench.peers.jax_loops",
    "torch": "bench.peers.torch_loops",
    "torch.nn": "bench.peers.torch_loops",
}
FEW = 8


def numbers(values: Values) -> list[float]:
    """Return results as numbers: small ones as they are, of large arrays the norm and a projection."""
    found: list[float] = []
    for value in values:
        if isinstance(value, (tuple, list)):
            found += numbers(tuple(value))
            continue
        flat = np.asarray(value, np.float64).ravel()
        if flat.size > FEW:
            direction = np.random.default_rng(0).normal(size=flat.size)
            flat = np.array([np.linalg.norm(flat), flat @ direction])
        found += [float(v) for v in flat]
    return found


class Server:
    """The library's side of the measurement."""

    def __init__(self, library: str, modules: Mapping[str, str]):
        began = time.perf_counter()
        self.module: ModuleType = importlib.import_module(modules[library])
        self.programs = self.module.NN_PROGRAMS if library == "torch.nn" else self.module.PROGRAMS
        self.imported = time.perf_counter() - began
        self.program: Program | None = None

    def made(self, case: str, size: int) -> Program:
        if case not in self.programs:
            raise Refused("not written in this library")
        program: Program = self.programs[case](size)
        return program

    def start(self, case: str, size: int) -> dict[str, Any]:
        began = time.perf_counter()
        self.program = self.made(case, size)
        values = self.program()
        first = time.perf_counter() - began
        return {
            "import": self.imported,
            "first": first,
            "values": numbers(values),
            "version": self.module.version(),
        }

    def values(self, case: str, size: int) -> dict[str, Any]:
        return {"values": numbers(self.made(case, size)())}

    def burst(self, seconds: float) -> dict[str, Any]:
        assert self.program is not None, "burst before start"
        times: list[float] = []
        began = time.perf_counter()
        while not times or time.perf_counter() - began < seconds:
            at = time.perf_counter()
            self.program()
            times.append(time.perf_counter() - at)
        return {"step": statistics.median(times)}

    def fresh(self, case: str, size: int) -> dict[str, Any]:
        at = time.perf_counter()
        program = self.made(case, size)
        program()
        first = time.perf_counter()
        program()
        return {"compile": (first - at) - (time.perf_counter() - first)}


def answer(server: Server, line: str) -> dict[str, Any]:
    """Do what a line says."""
    command, *words = line.split()
    if command == "burst":
        return server.burst(float(words[0]))
    method = {"start": server.start, "values": server.values, "fresh": server.fresh}[command]
    return method(words[0], int(words[1]))


def serve(library: str, modules: Mapping[str, str] = MODULES) -> None:
    """Answer commands from standard input; what the library prints goes to standard error."""
    answers = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)
    server: Server | None = None
    for line in sys.stdin:
        try:
            server = server or Server(library, modules)
            found = answer(server, line)
        except Refused as error:
            found = {"error": f"refused: {error}"}
        except Exception as error:
            traceback.print_exc()
            found = {"error": f"{type(error).__name__}: {str(error).partition(chr(10))[0]}"}
        answers.write(json.dumps(found) + "\n")
        answers.flush()


if __name__ == "__main__":
    serve(sys.argv[1])
