"""One library in one process: calls with many arrays."""

from __future__ import annotations

import sys

from bench.worker import serve

MODULES = {
    "tracegrad": "bench.calls",
    "jax": "bench.peers.jax_calls",
    "inductor": "bench.peers.torch_calls",
    "pytensor": "bench.peers.pytensor_calls",
    "autograd": "bench.peers.autograd_calls",
}

if __name__ == "__main__":
    serve(sys.argv[1], MODULES)
