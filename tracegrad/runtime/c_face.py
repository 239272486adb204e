"""A program as a shared library for C: its object code and library kernels, linked behind one documented function.

    int64_t step(float *w, const float *x, float *loss);

Arguments and results are pointers to arrays, in order, in C order unless the header tells another one; a donated
argument is also its result. The program runs on the caller's thread, needs no Python, and keeps no state: every call
has memory of its own.
"""

from __future__ import annotations

import re
import shutil
import subprocess
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tracegrad.errors import ArtefactError
from tracegrad.ir.layout import Layout, describe
from tracegrad.runtime.artefact import Build
from tracegrad.runtime.layout import memory_of
from tracegrad.runtime.objects import address_in_c
from tracegrad.runtime.sealed import write

COMPILERS = ("cc", "gcc", "clang")
C_TYPES = {
    "bool": "uint8_t", "i8": "int8_t", "i16": "int16_t", "i32": "int32_t", "i64": "int64_t", "u8": "uint8_t",
    "u16": "uint16_t", "u32": "uint32_t", "u64": "uint64_t", "f32": "float", "f64": "double",
    "f16": "uint16_t", "bf16": "uint16_t",
}  # fmt: skip
KEYWORDS = frozenset(
    "auto break case char const continue default do double else enum extern float for goto if inline int long register"
    " restrict return short signed sizeof static struct switch typedef union unsigned void volatile while bool true"
    " false nullptr asm new delete class this template operator private public protected try catch throw".split()
)

USED = frozenset({*C_TYPES.values(), "NULL", "aligned_alloc", "free", "linux", "unix"})
"""Names that mean something else in the header, or in the function, than a parameter. All others begin with tg_."""

RUNTIME = """
/* What long loops ask Python for elsewhere: nobody interrupts them here. */
int32_t tg_gil_ensure(void) { return 0; }
int32_t tg_check_signals(void) { return 0; }
void tg_gil_release(int32_t state) { (void)state; }
extern int64_t tg_entry(int64_t table);
"""


@dataclass(frozen=True)
class Parameter:
    """One pointer of the C function."""

    name: str
    path: str
    dtype: str
    shape: tuple[int, ...]
    role: str
    layout: Layout = None

    def declaration(self) -> str:
        return f"{'const ' if self.role == 'argument' else ''}{C_TYPES[self.dtype]} *{self.name}"

    def describe(self) -> str:
        size = "".join(f"[{n}]" for n in self.shape)
        notes = {"argument": "", "donated": ", overwritten by a result", "result": ", written"}
        bits = f", the bits of {self.dtype}" if self.dtype in ("f16", "bf16") else ""
        stored = ""
        if self.layout is not None:
            stored = f", {describe(self.layout, self.shape)}: strides of {self.layout} elements"
        text = f"{self.path}{bits}{stored}{notes[self.role]}".replace("*/", "* /")  # it stands in a comment
        return f" *   {self.name:20} {C_TYPES[self.dtype]}{size}: {text}"


def identifier(path: str, taken: set[str]) -> str:
    """Return a C name for `params['w'][0]` that nothing else has."""
    base = re.sub(r"\W+", "_", path, flags=re.ASCII).strip("_") or "x"
    base = f"{base}_" if base in KEYWORDS or base.startswith("tg_") else (f"x{base}" if base[0].isdigit() else base)
    name, number = base, 1
    while name in taken:
        number += 1
        name = f"{base}_{number}"
    taken.add(name)
    return name


def parameters(facts: dict[str, Any], arguments: Sequence[str], results: Sequence[str], name: str) -> list[Parameter]:
    """Return the parameters in order: arguments, then the results that no donated argument holds."""
    donated = {number: results[i] for i, (_, _, number) in enumerate(facts["outputs"]) if number >= 0}
    taken = {name, *USED}
    found = []
    for i, path in enumerate(arguments):
        dtype, shape = facts["inputs"][i]
        role = "donated" if i in donated else "argument"
        text = f"{path}, becomes {donated[i]}" if i in donated else path
        layout = None if facts["layouts"][i] is None else tuple(facts["layouts"][i])
        found.append(Parameter(identifier(path, taken), text, dtype, tuple(shape), role, layout))
    for path, (dtype, shape, number) in zip(results, facts["outputs"], strict=True):
        if number < 0:
            found.append(Parameter(identifier(path, taken), path, dtype, tuple(shape), "result"))
    return found


def header(name: str, params: Sequence[Parameter], facts: dict[str, Any]) -> str:
    """Write the header: the function with all that its caller must know."""
    statuses = [f" *   {i + 1:3}  {check[0]}: an index is out of bounds for an axis of size {check[1]}"
                for i, check in enumerate(facts["checks"])]  # fmt: skip
    lines = [
        "/* Written by tracegrad. Needs no Python. */",
        f"#ifndef TRACEGRAD_{name.upper()}_H",
        f"#define TRACEGRAD_{name.upper()}_H",
        "",
        "#include <stdint.h>",
        "",
        "#ifdef __cplusplus",
        'extern "C" {',
        "#endif",
        "",
        "/*",
        f" * Run {name} once. All pointers are to arrays in C order, or stored as it is told here, aligned for their",
        " * type. What is written may not overlap anything else. Safe to call from several threads at once.",
        " *",
        *(p.describe() for p in params),
        " *",
        f" * Returns 0. Memory for the call ({facts['arena_bytes']} bytes) is taken with aligned_alloc and given back.",
        " *    -1  there is no memory",
        *statuses,
        " */",
        f"int64_t {name}({', '.join(p.declaration() for p in params) or 'void'});",
        "",
        "#ifdef __cplusplus",
        "}",
        "#endif",
        "",
        "#endif",
    ]
    return "\n".join(lines) + "\n"


def source(name: str, params: Sequence[Parameter], facts: dict[str, Any], captures: int) -> str:
    """Write the function: it fills the table of addresses and enters the program."""
    inputs = iter([p for p in params if p.role != "result"])
    written = iter([p for p in params if p.role == "result"])
    arguments = [f"(int64_t){next(inputs).name}" for _ in range(len(facts["inputs"]) - captures)]
    arguments += [f"(int64_t)tg_captured{i}" for i in range(captures)]
    table = ["0", "(int64_t)tg_arena", "0", *arguments]
    for _, _, number in facts["outputs"]:
        table.append(arguments[number] if number >= 0 else f"(int64_t){next(written).name}")
    size = -(-max(facts["arena_bytes"], 64) // 64) * 64
    kept = [
        f'__asm__(".section .rodata\\n.balign 64\\ntg_captured{i}:\\n.incbin \\"captured{i}\\"\\n.byte 0\\n.text");\n'
        f"extern const char tg_captured{i}[];"
        for i in range(captures)
    ]
    lines = [
        f'#include "{name}.h"',
        "#include <stdlib.h>",
        RUNTIME,
        *kept,
        f"int64_t {name}({', '.join(p.declaration() for p in params) or 'void'}) {{",
        f"    char *tg_arena = aligned_alloc(64, {size});",
        "    if (!tg_arena) return -1;",
        f"    int64_t tg_table[] = {{{', '.join([*table, '0'])}}};",
        "    int64_t tg_status = tg_entry((int64_t)tg_table);",
        "    free(tg_arena);",
        "    return tg_status;",
        "}",
    ]
    return "\n".join(lines) + "\n"


def is_name(name: str) -> bool:
    """Say whether a library may export a function of this name: none of C's, which it would put itself in front of."""
    is_identifier = bool(re.fullmatch(r"[A-Za-z]\w*", name, re.ASCII)) and not name.startswith("tg_")
    return is_identifier and name not in KEYWORDS | USED and not address_in_c(name)


def compiler() -> str:
    """Return a C compiler; raises ArtefactError if there is none."""
    for name in COMPILERS:
        if found := shutil.which(name):
            return found
    raise ArtefactError(
        f"export_c: there is no C compiler ({', '.join(COMPILERS)}) to link the library with",
        fix="install gcc or clang, or use compiled.save(path) for other Python processes",
    )


def export(
    folder: Path, name: str, build: Build, arguments: Sequence[str], results: Sequence[str], captured: Sequence[Any]
) -> Path:
    """Write `lib<name>.so` and `<name>.h`; return the path of the library."""
    linker = compiler()
    params = parameters(build.facts, arguments, results, name)
    with tempfile.TemporaryDirectory(prefix="tracegrad-") as scratch:
        place = Path(scratch)
        (place / f"{name}.h").write_text(header(name, params, build.facts))
        (place / f"{name}.c").write_text(source(name, params, build.facts, len(captured)))
        (place / "names").write_text(f"{{ global: {name}; local: *; }};")
        objects = {"program": build.program} | {f: data for f, (_, data) in build.libraries.items() if f != "caller"}
        for family, data in objects.items():
            (place / f"{family}.o").write_bytes(data)
        for i, array in enumerate(captured):
            layout = build.facts["layouts"][len(arguments) + i]
            (place / f"captured{i}").write_bytes(memory_of(array, layout))
        library = f"lib{name}.so"
        command = [linker, "-shared", "-fPIC", "-O1", "-std=c11", "-Wl,-z,notext", "-Wl,--version-script=names"]
        command += [f"{name}.c", *(f"{family}.o" for family in objects), "-lm", "-o", library]
        done = subprocess.run(command, cwd=place, capture_output=True, text=True)
        if done.returncode:
            raise ArtefactError(
                f"export_c: {linker} failed: {done.stderr.strip()[-300:]}", fix="report this with the message"
            )
        try:
            folder.mkdir(parents=True, exist_ok=True)
            for file in (f"{name}.h", library):
                write(folder / file, (place / file).read_bytes(), durable=True)
        except OSError as error:
            raise ArtefactError(
                f"export_c: {folder} cannot be written: {error.strerror or error}", fix="choose another folder"
            ) from None
    return folder / library
