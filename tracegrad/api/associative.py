"""Prefix sums and their like: `associative_scan`."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from tracegrad import numpy as tnp
from tracegrad import tree
from tracegrad.api.control import scan_length
from tracegrad.api.signature import leaf_aval


def associative_scan(fn: Callable[[Any, Any], Any], elems: Any, reverse: bool = False) -> Any:
    """Return all prefixes x0, fn(x0, x1), fn(fn(x0, x1), x2), ... along the first axis, in log2(n) parallel steps.

    `fn` must be associative, and work on whole arrays (pytrees of one length). The even prefixes follow from the
    odd ones
    (Blelloch, "Prefix sums and their applications", 1990).

    >>> import numpy as np, tracegrad as tg
    >>> tg.associative_scan(lambda a, b: a * b, np.array([1.0, 2.0, 3.0, 4.0]))
    array([ 1.,  2.,  6., 24.])
    """
    if reverse:
        flipped = tree.map(lambda x: tnp.flip(x, 0), elems)
        return tree.map(lambda x: tnp.flip(x, 0), associative_scan(lambda a, b: fn(a, b), flipped))
    n = scan_length([leaf_aval(x, "elems")[0] for x in tree.leaves(elems)], None)
    if n < 2:
        return elems
    pairs = fn(tree.map(lambda x: x[: n - 1 : 2], elems), tree.map(lambda x: x[1::2], elems))
    odd = associative_scan(fn, pairs)
    if n == 2:
        return tree.map(lambda x, y: tnp.concatenate([x[:1], y]), elems, odd)
    before = tree.map(lambda x: x[: (n - 1) // 2], odd)
    even = fn(before, tree.map(lambda x: x[2::2], elems))
    even = tree.map(lambda x, e: tnp.concatenate([x[:1], e]), elems, even)
    return tree.map(interleave, even, odd)


def interleave(even: Any, odd: Any) -> Any:
    """Put two arrays together, taking rows in turns; the first may be one row longer."""
    m = odd.shape[0]
    both = tnp.reshape(tnp.stack([even[:m], odd], axis=1), (2 * m, *odd.shape[1:]))
    return both if even.shape[0] == m else tnp.concatenate([both, even[m:]])
