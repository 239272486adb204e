"""One library in one process: answers commands, one line each, and is idle in between.

start CASE     import the library, make the session, do the first step -> {"import", "first", "loss", "version"}
burst SECONDS  -> {"step"}: the median seconds of a step over about that long
"""

from __future__ import annotations

import importlib
import json
import os
import sys
import time
from collections.abc import Mapping
from typing import Any

from bench.session import Session

MODULES = {
    "tracegrad": "bench.ours",
    "torch": "bench.peers.torch_steps",
    "inductor": "bench.peers.torch_steps",
    "jax": "bench.peers.jax_steps",
    "pytensor": "bench.peers.pytensor_steps",
    "autograd": "bench.peers.autograd_steps",
}


def start(library: str, case: str, modules: Mapping[str, str]) -> tuple[Session, dict[str, Any]]:
    """Import the library and do the first step."""
    began = time.perf_counter()
    module = importlib.import_module(modules[library])
    imported = time.perf_counter()
    session: Session = module.SESSIONS[library](case)
    loss = session.run(1)
    first = time.perf_counter() - imported
    return session, {"import": imported - began, "first": first, "loss": loss, "version": module.version()}


def burst(session: Session, seconds: float) -> dict[str, Any]:
    """Run for about `seconds`, in at least three groups of steps after one to warm up."""
    began = time.perf_counter()
    session.run(1)
    each = time.perf_counter() - began
    group = max(1, int(seconds / 8 / max(each, 1e-7)))
    session.run(group)
    times: list[float] = []
    began = time.perf_counter()
    while len(times) < 3 or time.perf_counter() - began < seconds:
        at = time.perf_counter()
        session.run(group)
        times.append((time.perf_counter() - at) / group)
    times.sort()
    return {"step": (times[(len(times) - 1) // 2] + times[len(times) // 2]) / 2}


def serve(library: str, modules: Mapping[str, str] = MODULES) -> None:
    """Answer commands from standard input; what the library prints goes to standard error."""
    answers = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)
    session: Session | None = None
    for line in sys.stdin:
        command, _, argument = line.strip().partition(" ")
        try:
            if command == "start":
                session, answer = start(library, argument, modules)
            else:
                assert session is not None, "burst before start"
                answer = burst(session, float(argument))
        except Exception as error:
            sys.excepthook(type(error), error, error.__traceback__)
            answer = {"error": f"{type(error).__name__}: {error}"}
        answers.write(json.dumps(answer) + "\n")
        answers.flush()


if __name__ == "__main__":
    serve(sys.argv[1])
