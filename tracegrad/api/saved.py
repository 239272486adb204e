"""Compiled programs in files: what `compiled.save` writes, what `tg.load` and `python -m tracegrad inspect` read."""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from tracegrad import structure, tree
from tracegrad.api.captures import Fixed
from tracegrad.api.function import Parts, Specialised
from tracegrad.api.signature import Parameters, absent
from tracegrad.errors import ArtefactError, TracegradError
from tracegrad.ir.layout import describe
from tracegrad.runtime import artefact, c_face
from tracegrad.runtime.artefact import Artefact
from tracegrad.runtime.layout import laid_out
from tracegrad.runtime.objects import ObjectError
from tracegrad.runtime.program import Program, build

NUMBERS: dict[str | None, Any] = {"bool": False, "int": 0, "float": 0.0}


def save(parts: Parts, path: str | Path, levels: Sequence[str]) -> None:
    """Write a program to a file; captured arrays are written with the values they have now."""
    specialised = parts.specialised
    program = specialised.program
    signature = {
        "parameters": parts.parameters.names,
        "static_names": sorted(parts.parameters.static),
        "static": structure.encode_value(parts.static),
        "arguments": structure.encode(parts.treedef),
        "results": structure.encode(specialised.out_tree),
        "leaves": parts.parameters.leaf_names(parts.treedef),
        "numbers": [type(leaf).__name__ if type(leaf) in (bool, int, float) else None for leaf in specialised.leaves],
        "outputs": result_names(specialised.out_tree),
    }
    arrays = [np.array(source.read(), order="C") for source in specialised.captures]
    builds = [artefact.build_of(program)]
    builds += [artefact.build_for(level, program.graph, program.donate, program.layouts) for level in levels]
    found = Artefact(parts.name, program.text, program.donate, signature, builds, arrays, program.layouts)
    artefact.save(found, Path(path))


def export_c(parts: Parts, folder: str | Path, name: str) -> Path:
    """Write a program as a shared library and a header for C; return the path of the library."""
    chosen = name or parts.name
    if not c_face.is_name(chosen):
        raise ArtefactError(f"export_c: {chosen!r} is no name for a C function", fix='pass one: name="step"')
    specialised = parts.specialised
    arguments = parts.parameters.leaf_names(parts.treedef)
    captured = [source.read() for source in specialised.captures]
    build = artefact.build_of(specialised.program)
    return c_face.export(Path(folder), chosen, build, arguments, result_names(specialised.out_tree), captured)


def result_names(out_tree: tree.TreeDef) -> list[str]:
    return ["result" + "".join(f"[{entry!r}]" for entry in path) for path in out_tree.paths()]


def load(path: str | Path, strict: bool) -> Parts:
    """Read a program from a file, ready to run."""
    found = artefact.read(Path(path))
    try:
        parameters = Parameters.stored(found.signature["parameters"], found.signature["static_names"])
        static = tuple(structure.decode_value(found.signature["static"]))
        treedef = structure.decode(found.signature["arguments"])
        out_tree = structure.decode(found.signature["results"])
        names = list(found.signature["leaves"])
    except (KeyError, TypeError) as error:
        raise ArtefactError(f"load: {path} has no signature ({error!r})", fix="save the program again") from None
    program = program_of(found, names, strict)
    inputs = len(program.executable.facts.inputs)
    if treedef.num_leaves + len(found.arrays) != inputs or out_tree.num_leaves != len(program.executable.facts.outputs):
        raise ArtefactError(f"load: the signature in {path} is not that of its program", fix="save the program again")
    layouts = program.layouts[treedef.num_leaves :]
    captures = tuple(Fixed(laid_out(array, layout)) for array, layout in zip(found.arrays, layouts, strict=True))
    numbers = found.signature.get("numbers", [None] * treedef.num_leaves)
    leaves = [NUMBERS.get(kind) for kind in numbers]
    specialised = Specialised(program, out_tree, captures, treedef, leaves)
    return Parts(absent, found.name, parameters, specialised, treedef, static)


def program_of(found: Artefact, names: Sequence[str], strict: bool) -> Program:
    """Return the program: from its object code, or compiled again when there is none for this machine."""
    reason = artefact.unfit(found)
    if not reason:
        try:
            executable = artefact.executable_of(found, names)
            return Program(found.graph, executable, {}, found.donate, text=found.text)
        except (ObjectError, TypeError, KeyError, ValueError) as error:
            reason = f"its object code cannot be loaded ({error})"
    if strict:
        raise ArtefactError(
            f"load: {found.name} cannot run here as it is: {reason}",
            fix="load it with strict=False, to compile it again from its graph",
        )
    warnings.warn(f"{found.name} is compiled again from its graph: {reason}", stacklevel=4)
    try:
        return build(found.graph(), donate=found.donate, names=names, layouts=found.layouts)
    except TracegradError:
        raise
    except Exception as error:
        raise ArtefactError(f"load: {found.name} cannot be compiled: {error}", fix="save it again") from error


# --- inspecting -------------------------------------------------------------------------------------------------------


def inspect(path: str | Path) -> str:
    """Describe a file: signature, versions, CPUs, memory, kernels, graph. Nothing in it is run, no class imported."""
    found = artefact.read(Path(path))
    lines = [f"{found.name}, {Path(path).stat().st_size} bytes"]
    lines += [f"  {name} {number}" for name, number in found.versions.items()]
    first = found.builds[0].facts if found.builds else {"inputs": [], "outputs": []}
    names = found.signature.get("leaves", [])
    donated = {number for *_, number in first["outputs"] if number >= 0}
    lines.append("arguments:")
    for i, (dtype, shape) in enumerate(first["inputs"][: len(names)]):
        stored = describe(found.layouts[i], shape) if found.layouts else ""
        notes = [note for note in (stored, "donated" if i in donated else "") if note]
        lines.append(", ".join([f"  {names[i]}: {written(dtype, shape)}", *notes]))
    lines += [f"  static {text}" for text in static_texts(found)]
    if found.arrays:
        lines.append("captured arrays, kept in the file:")
        lines += [f"  {written(*first['inputs'][len(names) + i])}" for i in range(len(found.arrays))]
    lines.append("results:")
    outputs = found.signature.get("outputs", [])
    for name, (dtype, shape, number) in zip(outputs, first["outputs"], strict=True):
        lines.append(f"  {name}: {written(dtype, shape)}{f', in the memory of {names[number]}' if number >= 0 else ''}")
    for made in found.builds:
        lines += build_lines(made)
    return "\n".join([*lines, "graph:", *(f"  {line}" for line in found.text.split("\n"))])


def written(dtype: str, shape: Sequence[int]) -> str:
    return dtype + (f"[{', '.join(map(str, shape))}]" if shape else "")


def static_texts(found: Artefact) -> list[str]:
    try:
        pairs = structure.decode_value(found.signature.get("static", {"tuple": []}))
    except ArtefactError as error:
        return [error.message]
    return [f"{name}={value!r}" for name, value in pairs]


def build_lines(made: artefact.Build) -> list[str]:
    """Describe what was compiled for one CPU."""
    facts = made.facts
    libraries = ", ".join(f"{family} {len(data)}" for family, (_, data) in made.libraries.items())
    state = "runs here" if made.fits() else "does not run on this CPU"
    return [
        f"compiled for {made.cpu.name} ({state}):",
        f"  {facts['kernels']} kernels and calls, arena {facts['arena_bytes']} bytes, {facts['threads']} threads",
        f"  object code {len(made.program)} bytes, library kernels {libraries}",
        *(f"    {i}: {step}" for i, step in enumerate(facts["steps"])),
    ]
