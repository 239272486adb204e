"""Kernels between guard pages, in processes of their own (a fault ends a process), compiled for several CPUs.

The checks are in `guarded_*.py`; `python -m pytest tests/guarded_convolutions.py` runs one by hand, with more examples
where RANDOM_CONVOLUTIONS or RANDOM_PRODUCTS says so, on another CPU where TRACEGRAD_CPU does. ALL_CPUS=1, as in
`.ci/run`, repeats the checks for the other CPUs, for which all kernels are compiled.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from tracegrad.codegen.cpu import host, level
from tracegrad.codegen.tile_shape import tile_shape

ROOT = Path(__file__).parent.parent


FLOAT_KERNELS = (
    "tests/guarded_convolutions.py", "tests/guarded_products.py", "-k", "test_convolutions or any_layout or are_cut",
)  # fmt: skip


def run_apart(*arguments: str, **environment: str) -> None:
    command = [sys.executable, "-m", "pytest", "-q", "-x", "-p", "no:cacheprovider", "-p", "no:xdist", *arguments]
    done = subprocess.run(command, cwd=ROOT, env=os.environ | environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, (done.stdout + done.stderr)[-6000:]


def skip_where_this_machine_has(tile: str) -> None:
    """All kernels are compiled for the tile: a minute, in which nothing new is seen where they have been run."""
    if tile_shape().isa == tile:
        pytest.skip("the same kernels as in test_on_this_machine")


@pytest.mark.parametrize("name", ["convolutions", "products", "pooling", "layouts"])
def test_on_this_machine(name):
    run_apart(f"tests/guarded_{name}.py")


@pytest.mark.skipif("ALL_CPUS" not in os.environ, reason="compiles all kernels for each CPU: set ALL_CPUS=1")
@pytest.mark.parametrize(("cpu", "tile"), [("x86-64-v3", "avx2"), ("x86-64-v2", "generic")])
def test_on_other_cpus(cpu, tile):
    """AVX2 with FMA, and vectors of 128 bits without FMA, as wide as NEON's."""
    if not level(cpu).runs_on(host()):
        pytest.skip(f"code for {cpu} does not run here")
    skip_where_this_machine_has(tile)
    run_apart(*FLOAT_KERNELS, TRACEGRAD_CPU=cpu, RANDOM_CONVOLUTIONS="15", RANDOM_PRODUCTS="10")


@pytest.mark.skipif("ALL_CPUS" not in os.environ, reason="compiles all kernels for each tile: set ALL_CPUS=1")
@pytest.mark.parametrize(("tile", "floats"), [("avx512", "float32 float64"), ("neon", "float32")])
def test_tiles_of_other_cpus(tile, floats):
    """The code of other tiles in this machine's instructions; float64 in NEON's vectors is seen at x86-64-v2."""
    skip_where_this_machine_has(tile)
    environment = {"GUARDED_TILE": tile, "GUARDED_FLOATS": floats, "TRACEGRAD_CACHE": "0"}
    run_apart(*FLOAT_KERNELS, RANDOM_CONVOLUTIONS="15", RANDOM_PRODUCTS="10", **environment)


SCRIPT = """
import pathlib, sys
from tracegrad.runtime import library
pathlib.Path(sys.argv[1]).write_bytes(library.object_of("gemm_f32")[1])
"""


@pytest.mark.parametrize(
    ("cpu", "has", "lacks"), [("x86-64-v3", ("ymm", "vfmadd"), ("zmm",)), ("x86-64-v2", ("mulps",), ("ymm", "zmm"))]
)
def test_code_for_a_cpu_uses_its_instructions(cpu, has, lacks, tmp_path):
    objdump = shutil.which("objdump")
    if objdump is None:
        pytest.skip("objdump is not installed")
    path = tmp_path / "gemm.o"
    environment = os.environ | {"TRACEGRAD_CPU": cpu}
    subprocess.run([sys.executable, "-c", SCRIPT, str(path)], check=True, cwd=ROOT, env=environment)
    code = subprocess.run([objdump, "-d", str(path)], capture_output=True, text=True, check=True).stdout
    assert all(word in code for word in has)
    assert not any(word in code for word in lacks)
