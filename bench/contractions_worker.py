"""One library in one process, on BENCH_CORES cores (0: all of them): see `worker`."""

from __future__ import annotations

import sys

from bench.machine import keep_cores
from bench.worker import serve

MODULES = {
    "tracegrad": "bench.contractions",
    "torch": "bench.peers.torch_contractions",
    "jax": "bench.peers.jax_contractions",
    "numpy": "bench.peers.numpy_contractions",
    "peak": "bench.peak",
}

if __name__ == "__main__":
    keep_cores()
    serve(sys.argv[1], MODULES)
