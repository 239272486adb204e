"""README.md and ARCHITECTURE.md tell the truth: their code runs and prints what they show, docstring examples as well.

A `python` block is executed, after the ones before it; a `text` block that follows it is what it prints, word by word.
Blocks marked `console` are not looked at. The code map is made of the first sentences of all modules.
`python tests/test_readme.py --update` brings both pages up to date.
"""

from __future__ import annotations

import ast
import contextlib
import doctest
import importlib
import inspect
import io
import linecache
import re
import sys
import textwrap
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import tracegrad as tg
from tracegrad.ir import PRIMITIVES

ROOT = Path(__file__).parent.parent
PAGES = ("README.md", "tracegrad/ARCHITECTURE.md")
BLOCK = re.compile(r"^```python\n(?P<code>.*?)^```\n(?:\n```text\n(?P<text>.*?)^```\n)?", re.DOTALL | re.MULTILINE)
MODULES = (
    *sorted({getattr(tg, name).__module__ for name in tg.__all__ if inspect.isroutine(getattr(tg, name))}),
    "tracegrad.ir.text", "tracegrad.random", "tracegrad.tape", "tracegrad.tape.engine", "tracegrad.tape.hooks",
    "tracegrad.tape.modes", "tracegrad.tape.node", "tracegrad.tape.tensor", "tracegrad.testing", "tracegrad.tree",
)  # fmt: skip
"""The modules whose examples are run: those that define public functions, and some more."""
NAMESPACES = (
    "tracegrad.autograd", "tracegrad.numpy", "tracegrad.nn", "tracegrad.nn.functional", "tracegrad.optim",
    "tracegrad.data",
)  # fmt: skip


def printed(page: str) -> list[tuple[int, str | None, str]]:
    """Run every block of a page in one namespace; return line, expected text and printed text of each."""
    source = (ROOT / page).read_text(encoding="utf-8")
    namespace: dict[str, Any] = {"__name__": "page"}
    found = []
    known = dict(PRIMITIVES)
    for block in BLOCK.finditer(source):
        out = io.StringIO()
        linecache.cache["you.py"] = (len(block["code"]), None, block["code"].splitlines(keepends=True), "you.py")
        with contextlib.redirect_stdout(out):
            exec(compile(block["code"], "you.py", "exec"), namespace)
        found.append((source[: block.start()].count("\n") + 1, block["text"], out.getvalue()))
    for name in PRIMITIVES.keys() - known.keys():  # declared on a page, to show how
        del PRIMITIVES[name]
    return found


def code_map() -> str:
    """Return one line per file: its name, and the first sentence of its docstring."""
    package = ROOT / "tracegrad"
    lines = []
    for folder in sorted({path.parent for path in package.rglob("*.py")}):
        lines.append(f"{folder.relative_to(ROOT).as_posix()}/")
        for path in sorted(folder.glob("*.py")):
            text = " ".join(
                (ast.get_docstring(ast.parse(path.read_text(encoding="utf-8"))) or "").split("\n\n")[0].split()
            )
            sentence = re.split(r"(?<=\.) ", text)[0].rstrip(".:")
            lines += textwrap.wrap(f"    {path.name:<24} {sentence}", 116, subsequent_indent=" " * 29)
    return "\n".join(["```console", *lines, "```"])


@pytest.mark.parametrize("page", PAGES)
def test_pages_print_what_they_show(page: str) -> None:
    found = printed(page)
    assert found
    for line, expected, text in found:
        assert (expected or "") == text, f"{page}:{line}"


def test_code_map_is_complete() -> None:
    assert code_map() in (ROOT / PAGES[1]).read_text(encoding="utf-8"), "run python tests/test_readme.py --update"


@pytest.mark.parametrize("page", PAGES)
def test_pages_name_files_that_exist(page: str) -> None:
    source = (ROOT / page).read_text(encoding="utf-8")
    for target in re.findall(r"\]\(([^)#:]+)\)", source):
        assert ((ROOT / page).parent / target).exists(), target


def run_examples(item: Any, name: str, globs: dict[str, Any]) -> int:
    """Run the examples of one docstring; return how many there are."""
    finder = doctest.DocTestFinder(recurse=False)
    runner = doctest.DocTestRunner(verbose=False, optionflags=doctest.ELLIPSIS | doctest.NORMALIZE_WHITESPACE)
    out = io.StringIO()
    for test in finder.find(item, name, globs=dict(globs)):
        runner.run(test, out=out.write)
    assert runner.failures == 0, out.getvalue()
    return runner.tries


@pytest.mark.parametrize("module", MODULES)
def test_examples_in_modules(module: str) -> None:
    found = importlib.import_module(module)
    results = doctest.testmod(found, extraglobs={"np": np, "tg": tg}, optionflags=doctest.ELLIPSIS)
    assert results.failed == 0


@pytest.mark.parametrize("module", NAMESPACES)
def test_examples_in_namespaces(module: str) -> None:
    namespace = importlib.import_module(module)
    tries = 0
    for name in namespace.__all__:
        item = getattr(namespace, name)
        if not (inspect.isfunction(item) or inspect.isclass(item)) or "tracegrad" not in item.__module__:
            continue
        globs = {**vars(sys.modules[item.__module__]), "np": np, "tg": tg}
        tries += run_examples(item, name, globs)
    assert tries > 0


@pytest.mark.parametrize("name", [n for n in tg.__all__ if inspect.isfunction(getattr(tg, n))])
def test_public_functions_have_an_example(name: str) -> None:
    assert ">>> " in (inspect.getdoc(getattr(tg, name)) or "")


def update(page: str) -> None:
    """Write what the blocks of a page print into it."""
    texts = iter(printed(page))

    def block(match: re.Match[str]) -> str:
        _, expected, text = next(texts)
        shown = f"\n```text\n{text}```\n" if text or expected is not None else ""
        return f"```python\n{match['code']}```\n{shown}"

    path = ROOT / page
    source = BLOCK.sub(block, path.read_text(encoding="utf-8"))
    before, begin, rest = source.partition("<!-- code map: begin -->\n")
    if begin:
        source = f"{before}{begin}{code_map()}\n{rest[rest.index('<!-- code map: end') :]}"
    path.write_text(source, encoding="utf-8")


if __name__ == "__main__" and "--update" in sys.argv:
    for page in PAGES:
        update(page)
