"""Pytrees: optree's compiled module alone, with the package around it, and its public functions say the same."""

from __future__ import annotations

import subprocess
import sys
from collections import OrderedDict, namedtuple
from pathlib import Path
from typing import Any

import optree
import pytest

import tracegrad as tg
from tracegrad import tree

Pair = namedtuple("Pair", "first second")
TREES: list[Any] = [
    3.0, (), None, [1, (2, None)], {"b": 1, "a": [2, {"c": 3}]}, Pair(1, (2, 3)), OrderedDict(z=1, y=[2, None]),
]  # fmt: skip


HIDDEN_ONCE = (
    "import importlib.machinery as m; find, hidden = m.PathFinder.find_spec, ['optree._C']\n"
    "def find_once(name, *path): return hidden.pop() and None if name in hidden else find(name, *path)\n"
    "m.PathFinder.find_spec = find_once; import tracegrad as tg; assert not hidden; import optree"
)


@pytest.mark.parametrize("value", TREES, ids=repr)
def test_compiled_module_alone_and_public_functions_agree(value: Any) -> None:
    public = tree.Public()
    for none_is_leaf, flatten in ((False, tree.flatten), (True, tree.flatten_with_none)):
        leaves, treedef = flatten(value)
        assert (leaves, treedef) == public.flatten(value, None, none_is_leaf, tree.NAMESPACE)
        assert (leaves, treedef) == optree.tree_flatten(value, none_is_leaf=none_is_leaf, namespace=tree.NAMESPACE)
        assert tree.unflatten(treedef, leaves) == value
    paths, leaves, _ = public.flatten_with_path(value, None, False, tree.NAMESPACE)
    assert (["".join(f"[{e!r}]" for e in path) for path in paths], leaves) == (tree.paths(value), tree.leaves(value))


def test_map_refuses_another_structure() -> None:
    assert tree.map(lambda a, b: a + b, {"x": 1, "y": (2,)}, {"x": 3, "y": (4,)}) == {"x": 4, "y": (6,)}
    with pytest.raises(ValueError, match="dictionary key mismatch"):
        tree.map(lambda a, b: a, {"x": 1}, {"y": 1})


@pytest.mark.parametrize(
    "program",
    [
        "import tracegrad as tg, sys; assert 'optree' not in sys.modules; import optree",
        "import optree, tracegrad as tg",
        HIDDEN_ONCE,
    ],
    ids=["before", "after", "another"],
)
def test_optree_itself_still_works(program: str) -> None:
    """Imported before or after tracegrad, and where its compiled module is not found alone."""
    check = (
        "import sys\nfrom tracegrad import nn, tree\n"
        "assert optree.tree_flatten({'a': (1, 2)}) == ([1, 2], optree.tree_structure({'a': (0, 0)}))\n"
        "model = nn.Linear(2, 3)\n"
        "assert len(tree.leaves(model)) == len(optree.tree_leaves(model, namespace='tracegrad')) == 2\n"
        "leaves, treedef = tree.flatten([1, {'b': 2}])\n"
        "assert isinstance(treedef, optree.PyTreeSpec) and tree.unflatten(treedef, leaves) == [1, {'b': 2}]\n"
        "assert optree._C.flatten is sys.modules['optree._C'].flatten and optree._C.__spec__.name == 'optree._C'\n"
        "assert not [f for f in sys.meta_path if type(f).__module__.startswith('tracegrad')]\n"
        "assert [a.codify('x') for a in treedef.accessors()] == ['x[0]', \"x[1]['b']\"]\n"
    )
    root = Path(tg.__file__).parent.parent
    subprocess.run([sys.executable, "-c", f"{program}\n{check}"], cwd=root, check=True)


def test_pytorch_finds_its_optree() -> None:
    """PyTorch's optimizers import optree and use its compiled module by attribute."""
    pytest.importorskip("torch")
    program = (
        "import tracegrad as tg\nassert tg.grad(lambda p: p['a'] ** 2)({'a': 3.0})['a'] == 6.0\n"
        "import torch\nx = torch.zeros(2, requires_grad=True)\ntorch.optim.SGD([x], lr=0.1).step()\n"
    )
    subprocess.run([sys.executable, "-c", program], cwd=Path(tg.__file__).parent.parent, check=True)
