"""One library in one process, on BENCH_CORES cores (0: all of them): see `loops_worker`."""

from __future__ import annotations

import sys

from bench.loops_worker import serve
from bench.machine import keep_cores

MODULES = {
    "tracegrad": "bench.programs",
    "numpy": "bench.peers.numpy_programs",
    "numba": "bench.peers.numba_programs",
    "jax": "bench.peers.jax_programs",
}

if __name__ == "__main__":
    keep_cores()
    serve(sys.argv[1], MODULES)
