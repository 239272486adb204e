"""The sum of a batch of products is one product, whose sums run over the batch, too.

    reduce_sum(dot(a[b, i, k], c[b, k, j], batch=b), axes=b) -> dot(a, c) over (b, k)

Gradients of weights that a batch shares are such sums.  The batch of products, which may be many times as large as its
sum, is never in memory.  The same terms are summed; in which order is up to the kernel, as for any product.
"""

from __future__ import annotations

from collections import Counter

from tracegrad.ir import Builder, Graph, Node, Operand
from tracegrad.ir.build import mapped
from tracegrad.ops.contract import contraction_cut, dot, free, is_run
from tracegrad.ops.reduce import reduce_sum

FEWEST = 9  # rows and columns of the result: products with fewer have a faster kernel of their own (`plan_gemm`)


def join_batch_sums(graph: Graph) -> Graph:
    """Return `graph` with each sum over the batch of products that nothing else reads as one product."""
    users = Counter(o for node in graph.nodes for o in node.nodes())
    users.update(o for o in graph.outputs if isinstance(o, Node))
    joined = {n: found for n in graph.nodes if (found := joined_sum(n, users)) is not None}
    if not joined:
        return graph
    builder = Builder(graph.name)
    here: dict[Node, Operand] = {}
    for node in graph.inputs:
        here[node] = builder.input(node.aval, graph.names.get(node, ""), node.where)
    for node in graph.nodes:
        source, params = joined.get(node, (node, node.params))
        here[node] = builder.add(source.prim, [mapped(here, o) for o in source.operands], params, node.where)
    return builder.finish([mapped(here, o) for o in graph.outputs])


def joined_sum(node: Node, users: Counter[Node]) -> tuple[Node, dict[str, object]] | None:
    """Return the product and its new parameters if this node sums its batch; None if it does not, or nothing is won."""
    product = node.operands[0] if node.prim is reduce_sum else None
    if not isinstance(product, Node) or product.prim is not dot or users[product] != 1:
        return None
    (a_batch, b_batch), contract = product.params["batch"], product.params["contract"]
    summed = node.params["axes"]
    if not all(axis < len(a_batch) for axis in summed):
        return None
    kept = [i for i in range(len(a_batch)) if i not in summed]
    inner = tuple(
        (*(batch[i] for i in summed), *axes) for batch, axes in zip((a_batch, b_batch), contract, strict=True)
    )
    batch = tuple(tuple(side[i] for i in kept) for side in (a_batch, b_batch))
    shapes = [o.aval.shape for o in product.operands]
    for shape, axes, others in zip(shapes, inner, batch, strict=True):
        rows = free(len(shape), axes, others)
        size = 1
        for axis in rows:
            size *= shape[axis]
        if size < FEWEST or not is_run(shape, rows) or not is_run(shape, others):
            return None
    if contraction_cut(shapes[0], shapes[1], (inner[0], inner[1])) is None:
        return None
    return product, {"contract": inner, "batch": batch}
