"""One library in one process, on BENCH_CORES cores (0: all of them): see `worker`."""

from __future__ import annotations

import os
import sys

from bench.worker import serve

MODULES = {
    "tracegrad": "bench.contractions",
    "torch": "bench.peers.torch_contractions",
    "jax": "bench.peers.jax_contractions",
    "numpy": "bench.peers.numpy_contractions",
    "peak": "bench.peak",
}

if __name__ == "__main__":
    cores = int(os.environ.get("BENCH_CORES", "0"))
    if cores and hasattr(os, "sched_setaffinity"):
        os.sched_setaffinity(0, sorted(os.sched_getaffinity(0))[:cores])
    serve(sys.argv[1], MODULES)
