"""The shape of the code base: floors, imports, file sizes, names, the public surface, what `import tracegrad` costs."""

from __future__ import annotations

import ast
import importlib
import json
import os
import re
import subprocess
import sys
from functools import cache
from pathlib import Path
from typing import NamedTuple

import pytest

import tracegrad as tg

PACKAGE = Path(tg.__file__).parent
FILES = sorted(PACKAGE.rglob("*.py"))

FLOORS = (
    ("lazy", "record"),
    ("errors", "config", "tree"),
    ("bfloat16",),
    ("structure", "journal", "looping"),
    ("ir",),
    ("captured", "memory"),
    ("trace",),
    ("inlining",),
    ("ops",),
    ("grad", "passes"),
    ("schedule",),
    ("codegen",),
    ("runtime",),
    ("api",),
    ("tape",),
    ("autograd",),
    ("random",),
    ("nn", "optim", "data"),
    ("demo", "__init__"),
    ("__main__",),
)
BESIDE = {"numpy": "ops", "testing": "api"}
"""What stands beside the floors: it imports up to and including the floor named; only `api` and above import it."""

LAZY_IMPORTS = {
    "bfloat16.py": "ml_dtypes, an optional package",
    "api/python_control/__init__.py": "malt, an optional dependency: only to convert control flow",
    "data/digits.py": "scikit-learn, an optional dependency",
    "demo.py": "matplotlib, rich and tqdm, optional dependencies",
    "lazy.py": "this is the place: what a warm start does without",
    "nn/weights.py": "safetensors, an optional dependency",
    "runtime/from_source.py": "codegen imports Numba: only when this back end is asked for",
    "runtime/compiling.py": "codegen imports Numba: only when something must be compiled",
    "tree.py": "optree's compiled module, without the package around it",
    "structure.py": "classes in the structure of a saved program are imported by their names",
}
"""The files that may import inside a function (or through importlib), with the reason."""

BANNED = re.compile(r"(^|_)(util|utils|helper|helpers|common|manager|handler|misc)(_|$)", re.IGNORECASE)
MAX_LINES = 420

SURFACE = [
    "Compiled", "Function", "Tensor", "TracegradError", "as_tensor", "associative_scan", "benchmark", "checkpoint",
    "compile", "cond", "config", "custom_vjp", "eager", "enable_grad", "fori_loop", "from_dlpack", "from_numpy",
    "grad", "hessian", "is_grad_enabled", "jacfwd", "jacrev", "jit", "jvp", "load", "map", "no_grad", "numpy", "scan",
    "set_grad_enabled", "spec", "stop_gradient", "switch", "tensor", "track", "untrack", "value_and_grad", "vjp",
    "vmap", "while_loop",
]  # fmt: skip
NAMESPACES = {
    "tracegrad.numpy": 200, "tracegrad.numpy.linalg": 5, "tracegrad.nn": 20, "tracegrad.nn.functional": 30,
    "tracegrad.optim": 20, "tracegrad.random": 10, "tracegrad.data": 5, "tracegrad.autograd": 2,
}  # fmt: skip
"""Public namespaces, with the least number of names that each must keep."""


def name_of(path: Path) -> str:
    return path.relative_to(PACKAGE).as_posix()


def package_of(path: Path) -> str:
    return path.relative_to(PACKAGE).parts[0].removesuffix(".py")


def imported(node: ast.AST) -> list[str]:
    """Return the modules that an import statement names, `from tracegrad import x` as tracegrad.x."""
    match node:
        case ast.Import(names=names):
            return [alias.name for alias in names]
        case ast.ImportFrom(module="tracegrad", names=names):
            return [f"tracegrad.{alias.name}" for alias in names]
        case ast.ImportFrom(module=str() as module):
            return [module]
        case ast.Call(func=ast.Attribute(value=ast.Name(id="lazy"), attr="module"), args=[ast.Constant(value=module)]):
            return [str(module)]
    return []


class Facts(NamedTuple):
    """What the tests ask about a file: syntax trees of all files, kept, would slow down every collection of garbage."""

    imports: list[tuple[str, int]]
    imports_in_functions: list[int]
    classes: list[str]
    summary: str | None


@cache
def facts_of(path: Path) -> Facts:
    tree = ast.parse(path.read_text(encoding="utf-8"))
    nodes = list(ast.walk(tree))
    inside = [n for f in nodes if isinstance(f, (ast.FunctionDef, ast.AsyncFunctionDef)) for n in ast.walk(f)]
    calls = (n for n in inside if isinstance(n, ast.Call))
    return Facts(
        [(module, node.lineno) for node in nodes for module in imported(node)],  # type: ignore[attr-defined]
        sorted(
            {n.lineno for n in inside if imported(n)}  # type: ignore[attr-defined]
            | {c.lineno for c in calls if ast.unparse(c.func).endswith("import_module")}
        ),
        [n.name for n in nodes if isinstance(n, ast.ClassDef)],
        ast.get_docstring(tree),
    )


def floor_of(package: str) -> int:
    return next(i for i, floor in enumerate(FLOORS) if package in floor)


def may_import(package: str, other: str) -> bool:
    """Say whether the floors allow `package` to import `other`."""
    if package == other:
        return True
    if other in BESIDE:
        return package not in BESIDE and floor_of(package) >= floor_of("api")
    if package in BESIDE:
        return floor_of(other) <= floor_of(BESIDE[package])
    return floor_of(other) < floor_of(package)


@pytest.mark.parametrize("path", FILES, ids=name_of)
def test_imports_point_down_the_floors(path: Path) -> None:
    package = package_of(path)
    for module, line in facts_of(path).imports:
        root, _, rest = module.partition(".")
        if root == "tracegrad" and rest:
            other = rest.split(".")[0]
            assert may_import(package, other), f"line {line}: {package} imports {other}"


@pytest.mark.parametrize("path", FILES, ids=name_of)
def test_no_import_inside_a_function(path: Path) -> None:
    found = facts_of(path).imports_in_functions
    assert not found or name_of(path) in LAZY_IMPORTS, f"lines {found}"


def test_lazy_imports_are_all_needed() -> None:
    known = {name_of(path) for path in FILES}
    assert set(LAZY_IMPORTS) <= known


@pytest.mark.parametrize(
    ("module", "allowed"),
    [("numba", {"codegen"}), ("llvmlite", {"codegen", "runtime"}), ("optree", {"tree"}), ("pickle", set())],
)
def test_one_place_imports_it(module: str, allowed: set[str]) -> None:
    found = {package_of(p) for p in FILES for name, _ in facts_of(p).imports if name.split(".")[0] == module}
    assert found <= allowed


def test_config_alone_reads_the_environment() -> None:
    found = {name_of(p) for p in FILES if re.search(r"\bos\.(environ|getenv)\b", p.read_text(encoding="utf-8"))}
    assert found == {"config.py"}


@pytest.mark.parametrize("path", FILES, ids=name_of)
def test_files_are_short(path: Path) -> None:
    assert len(path.read_text(encoding="utf-8").splitlines()) < MAX_LINES


@pytest.mark.parametrize("path", FILES, ids=name_of)
def test_names_say_something(path: Path) -> None:
    names = [path.stem, *facts_of(path).classes]
    assert not [name for name in names if BANNED.search(re.sub(r"(?<=[a-z])(?=[A-Z])", "_", name))]


@pytest.mark.parametrize("path", FILES, ids=name_of)
def test_every_module_says_what_it_is(path: Path) -> None:
    assert facts_of(path).summary


# --- the public surface -----------------------------------------------------------------------------------------------


def test_public_names() -> None:
    assert sorted(tg.__all__) == SURFACE
    for name in tg.__all__:
        assert getattr(tg, name).__doc__, name


@pytest.mark.parametrize("module", NAMESPACES)
def test_public_namespaces(module: str) -> None:
    namespace = importlib.import_module(module)
    names = namespace.__all__
    assert len(names) == len(set(names)) >= NAMESPACES[module]
    for name in names:
        assert hasattr(namespace, name), name


def typed_imports(path: Path) -> dict[str, set[str]]:
    """Return what a package imports for type checkers alone: names by module."""
    statements = ast.parse(path.read_text(encoding="utf-8")).body
    blocks = [n for n in statements if isinstance(n, ast.If) and ast.unparse(n.test) == "TYPE_CHECKING"]
    return {n.module or "": {a.name for a in n.names} for b in blocks for n in b.body if isinstance(n, ast.ImportFrom)}


@pytest.mark.parametrize("module", ["tracegrad", "tracegrad.nn", "tracegrad.nn.functional"])
def test_names_of_lazy_packages(module: str) -> None:
    """What type checkers see, what `__getattr__` finds and what `__all__` promises are the same."""
    package = importlib.import_module(module)
    typed = typed_imports(Path(package.__file__ or ""))
    assert typed.pop(module, set()) == set(getattr(package, "MODULES", ()))
    assert typed == {place: set(names) for place, names in package.PLACES.items()}
    for place, names in package.PLACES.items():
        for name in names:
            assert getattr(package, name) is getattr(importlib.import_module(place), name)
    assert set(package.__all__) <= set(dir(package))
    with pytest.raises(AttributeError, match=f"module '{module}' has no attribute 'no_such_name'"):
        package.no_such_name


# --- starting ---------------------------------------------------------------------------------------------------------


def modules_after(program: str, cache_dir: Path) -> set[str]:
    """Run a program in a process of its own and return the top-level packages it imported."""
    script = f"{program}\nimport json, sys\nprint(json.dumps(sorted(sys.modules)))"
    environment = {**os.environ, "TRACEGRAD_CACHE_DIR": str(cache_dir), "PYTHONPATH": str(PACKAGE.parent)}
    done = subprocess.run([sys.executable, "-c", script], env=environment, capture_output=True, text=True, check=True)
    return set(json.loads(done.stdout.splitlines()[-1]))


def test_import_leaves_the_compiler_alone(tmp_path: Path) -> None:
    found = modules_after("import tracegrad", tmp_path)
    assert not found & {"numba", "scipy", "sklearn", "matplotlib", "torch", "tracegrad.codegen.program"}
    assert not found & {"llvmlite.binding", "importlib.metadata", "tempfile", "statistics", "subprocess"}
    assert not found & {"tracegrad.passes", "tracegrad.schedule", "tracegrad.tape"}
    assert not found - modules_after("import numpy", tmp_path) & {"optree", "dataclasses", "pathlib", "numpy.ma"}


def test_numba_is_imported_on_a_cache_miss_only(tmp_path: Path) -> None:
    program = "import numpy as np, tracegrad as tg\nassert tg.grad(lambda x: x * np.sin(x))(0.0) == 0.0"
    assert "numba" in modules_after(program, tmp_path)
    found = modules_after(program, tmp_path)
    assert not found - modules_after("import numpy", tmp_path) & {"optree", "dataclasses", "pathlib", "numpy.ma"}
    assert not found & {"numba", "tracegrad.passes", "tracegrad.schedule", "tracegrad.runtime.compiling"}
