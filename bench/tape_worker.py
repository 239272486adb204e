"""One library's tape in one process: see `worker`."""

from __future__ import annotations

import sys

from bench.worker import serve

MODULES = {
    "tracegrad": "bench.tape",
    "torch": "bench.peers.torch_tape",
    "autograd": "bench.peers.autograd_tape",
}

if __name__ == "__main__":
    serve(sys.argv[1], MODULES)
