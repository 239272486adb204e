"""The schedule: kernels and library calls in order, every value in its place.

Units are lowered from the last to the first, so that each one knows which of its values others read from memory.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field, replace

from tracegrad.config import config
from tracegrad.ir import Graph, Literal, Node, Operand
from tracegrad.ir.aval import NAMES, Avals, TapeAval
from tracegrad.ops.contract import contraction_cut, free
from tracegrad.ops.contract import dot as dot_primitive
from tracegrad.ops.control import cond, item, scan, while_loop
from tracegrad.ops.elementwise import convert
from tracegrad.ops.rewind import rewind
from tracegrad.ops.shape import broadcast, reshape
from tracegrad.schedule.body import Checks, buffer_name, view_index
from tracegrad.schedule.conversions import own_conversions
from tracegrad.schedule.epilogue import Grain, fuse_epilogues, loop_nest
from tracegrad.schedule.form import Context
from tracegrad.schedule.fuse import Fusion, ordered
from tracegrad.schedule.index import Affine, dot, strides
from tracegrad.schedule.kernel import Kernel, Store, copied, walk
from tracegrad.schedule.kinds import lowering
from tracegrad.schedule.lower import Elements, lower
from tracegrad.schedule.nests import lower_nest
from tracegrad.schedule.turn import moves_rows, turn_around
from tracegrad.schedule.units import Refusal, Unit


@dataclass(frozen=True)
class View:
    """An operand of a library call: elements of a buffer at an offset with strides, one per axis."""

    node: Node
    shape: tuple[int, ...]
    offset: int
    strides: tuple[int, ...]


@dataclass(frozen=True)
class Call:
    """A call of a library kernel; the code generator plans it.

    `epilogue` runs on every element of the result once, after it has been written and before the call returns: block
    by block where the library kernel can, else at the end.
    """

    node: Node
    operands: tuple[View, ...]
    epilogue: Kernel | None = None

    @property
    def name(self) -> str:
        return self.node.prim.name


@dataclass(frozen=True)
class Region:
    """A loop or a branch: the plans of its graphs, and the buffers of its results.

    `workspace` are a buffer for the memory of the inner plans (the code generator knows its size), one for the
    condition, and a second place for each carry, which the rounds of a loop use in turns. A rewind carries its sums; it
    has two places and the slots for each carry that it computes again, and then the rounds of the slots.
    """

    node: Node
    operands: tuple[View, ...]
    results: tuple[str, ...]
    plans: tuple[Plan, ...]
    workspace: tuple[str, ...]

    @property
    def name(self) -> str:
        return self.node.prim.name


Step = Kernel | Call | Region


@dataclass
class Plan:
    """Steps in order, the nodes behind their buffers, and where each output of the graph is found.

    `tapes` are the buffers that hold addresses of tapes: they keep their places to the end, where the tapes are freed.
    """

    graph: Graph
    steps: list[Step] = field(default_factory=list)
    buffers: dict[str, tuple[str, int]] = field(default_factory=dict)
    outputs: list[str] = field(default_factory=list)
    refusals: list[Refusal] = field(default_factory=list)
    checks: Checks = field(default_factory=dict)
    tapes: list[str] = field(default_factory=list)


def touched(step: Step) -> list[str]:
    """Return the buffers a step reads or writes, each once."""
    if isinstance(step, Kernel):
        return list(step.buffers())
    operands = [buffer_name(v.node) for v in step.operands]
    if isinstance(step, Region):
        return list(dict.fromkeys([*step.results, *step.workspace, *operands]))
    epilogue = step.epilogue.buffers() if step.epilogue else ()
    return list(dict.fromkeys([buffer_name(step.node), *operands, *epilogue]))


def written(step: Step) -> set[str]:
    """Return the buffers that a step writes, or may write."""
    if isinstance(step, Kernel):
        return {s.buffer for s in walk(step.body) if isinstance(s, Store)}
    return set(touched(step))


def taken_over(step: Step) -> dict[str, str]:
    """Return the buffers that a step copies as they are, and changes from then on, with the copies.

    A kernel may do nothing else; a loop copies what its carries start from, unless it reads that under another name.
    """
    if isinstance(step, Kernel):
        source, copy = copied(step.body)
        return {source: copy} if source else {}
    if not isinstance(step, Region) or step.node.prim not in (scan, while_loop):
        return {}
    names = [buffer_name(v.node) for v in step.operands]
    first = carries_from(step.node)
    starts = zip(names[first:], step.results[: step.node.params["n_carry"]], strict=False)
    return {source: copy for source, copy in starts if names.count(source) == 1}


def readers_first(steps: list[Step]) -> list[Step]:
    """Put what reads a value before the kernel that copies it, to change the copy, where it can run by then.

    The value is then read for the last time where it is copied, so that both are one buffer (`schedule.memory`). A
    step stays behind another one where one of the two writes what the other one touches.
    """
    known = {id(step): (set(touched(step)), written(step)) for step in steps}
    read_by: dict[str, list[Step]] = {}
    for step in steps:
        for name in known[id(step)][0]:
            read_by.setdefault(name, []).append(step)
    for copy in reversed(steps[:]):
        source = copied(copy.body)[0] if isinstance(copy, Kernel) else ""
        if not source or read_by[source][-1] is copy:
            continue
        place = {id(step): at for at, step in enumerate(steps)}
        at = place[id(copy)]
        readers = {k for step in read_by[source] if (k := place[id(step)]) > at}
        moved: set[int] = set()
        touches: set[str] = set()  # what the steps that move touch and write
        writes: set[str] = set()
        for k in reversed(range(at + 1, max(readers, default=at) + 1)):
            touched_here, written_here = known[id(steps[k])]
            if k in readers or writes & touched_here or written_here & touches:
                moved.add(k)
                touches |= touched_here
                writes |= written_here
        if moved and all(can_precede(steps[k], copy, source) for k in moved):
            rest = [k for k in range(at, len(steps)) if k not in moved]
            steps = [*steps[:at], *(steps[k] for k in sorted(moved)), *(steps[k] for k in rest)]
    return steps


def can_precede(step: Step, copy: Step, source: str) -> bool:
    """Say whether a small kernel reads nothing that the copying one writes, and leaves its source alone."""
    if not isinstance(step, Kernel) or not isinstance(copy, Kernel) or step.extent > copy.extent:
        return False
    return not written(copy) & set(touched(step)) and source not in written(step)


class Planner:
    """Lowers a graph whose rewrites are done."""

    def __init__(self, graph: Graph, threads: int, grain: Grain, checks: Checks | None = None):
        converted, alone = own_conversions(turn_around(graph))
        self.graph, self.roots = with_own_outputs(converted)
        self.grain = grain
        self.fusion = Fusion(self.graph, alone).run()
        if config.epilogues:
            fuse_epilogues(self.fusion, threads, grain)
        self.plan = Plan(self.graph, refusals=self.fusion.refusals, checks={} if checks is None else checks)
        self.context = Context(self.fusion.inlines, self.plan.checks, threads)
        self.wanted: set[Node] = set()

    def run(self) -> Plan:
        outputs = [self.contiguous_base(n) for n in self.roots]
        self.wanted.update(outputs)
        units = ordered(self.fusion)
        found: list[list[Step]] = []
        for number, unit in reversed(list(enumerate(units))):
            found.append(self.unit(unit, number))
        self.plan.steps = readers_first([step for steps in reversed(found) for step in steps])
        for node in self.wanted:
            if not isinstance(node.aval, Avals):
                self.plan.buffers[buffer_name(node)] = (NAMES[node.dtype], node.aval.size)
        self.plan.outputs = [buffer_name(n) for n in outputs]
        return self.plan

    def unit(self, unit: Unit, number: int) -> list[Step]:
        """Lower one unit if anything of it is wanted."""
        if unit.how == "input" or not any(n in self.wanted for n in unit.nodes):
            return []
        name = f"k{number}_{unit.title()}"
        node = unit.nodes[0]
        if unit.how == "library":
            return self.library(unit, name)
        if unit.how == "item":
            self.want(node.nodes())
            return []
        if unit.how == "control":
            return [self.region(node)]
        if unit.how == "nest" or (unit.how == "view" and moves_rows(node)):
            lowered = lower_nest(node, self.context, name)
        elif unit.how == "view":
            lowered = Elements(Unit([node], "view", node.shape), {node}, self.context, name).lower()
        else:
            lowered = lower(unit, self.wanted, self.context, name)
        self.want(lowered.needs)
        for buffer, dtype, size in lowered.temporaries:
            self.plan.buffers[buffer] = (dtype, size)
        return [k for k in lowered.kernels if k.extent > 0]

    def want(self, nodes: Iterable[Node]) -> None:
        self.wanted.update(nodes)

    # --- library calls ------------------------------------------------------------------------------------------------

    def library(self, unit: Unit, name: str) -> list[Step]:
        """Return the call of a unit, with the loops that run on its blocks as far as they are wanted."""
        node, loops = unit.nodes[0], unit.epilogue
        if loops is None or not any(n in self.wanted for n in loops.nodes):
            return [self.call(node)]
        lowered = loop_nest(loops, self.context, self.wanted, f"{name.split('_')[0]}_{loops.title()}")
        self.want(lowered.needs)
        (kernel,) = lowered.kernels
        if buffer_name(node) in kernel.buffers():
            return [replace(self.call(node), epilogue=kernel)]
        return [*([self.call(node)] if node in self.wanted else []), kernel]

    def call(self, node: Node) -> Call:
        """Give each operand as a view where the kernel takes strides, else as a contiguous buffer."""
        if node.prim is dot_primitive:
            contract, batch = node.params["contract"], node.params["batch"]
            operands = []
            shapes = [o.aval.shape for o in node.operands]
            cut = contraction_cut(shapes[0], shapes[1], contract) or 0
            for side, operand in enumerate(node.operands):
                rest = free(operand.aval.ndim, contract[side], batch[side])
                levels = [batch[side]] if len(batch[side]) > 2 else [(axis,) for axis in batch[side]]
                operands.append(self.strided(operand, [*levels, rest, contract[side][:cut], contract[side][cut:]]))
        else:
            operands = [self.contiguous(o) for o in node.operands]
        self.want([v.node for v in operands])
        return Call(node, tuple(operands))

    # --- control flow -------------------------------------------------------------------------------------------------

    def region(self, node: Node) -> Region:
        """Schedule the graphs of a loop or branch, and give each of its results a buffer."""
        operands = tuple(self.contiguous(o) for o in node.operands)
        self.want([v.node for v in operands])
        plans = tuple(Planner(g, self.context.threads, self.grain, self.plan.checks).run() for g in graphs_of(node))
        for plan in plans:
            self.plan.refusals += plan.refusals
        base = buffer_name(node)
        named = {
            n.params["index"]: buffer_name(n) for n in self.graph.nodes if n.prim is item and n.operands[0] is node
        }
        assert isinstance(node.aval, Avals)
        results = []
        for i, aval in enumerate(node.aval.parts):
            results.append(named.get(i, f"{base}.result{i}"))
            self.plan.buffers[results[-1]] = (NAMES[aval.dtype], aval.size)
            if isinstance(aval, TapeAval):
                self.plan.tapes.append(results[-1])
        workspace = []
        for name, dtype, size in workspace_of(node):
            workspace.append(f"{base}.{name}")
            self.plan.buffers[workspace[-1]] = (dtype, size)
        return Region(node, operands, tuple(results), plans, tuple(workspace))

    # --- operands -----------------------------------------------------------------------------------------------------

    def contiguous_base(self, node: Node) -> Node:
        """Return the node in whose buffer the elements of `node` stand in order."""
        while node.prim is reshape and isinstance(node.operands[0], Node):
            node = node.operands[0]
        return node

    def contiguous(self, operand: Operand) -> View:
        assert isinstance(operand, Node), "a literal operand of a library call was not materialised"
        base = self.contiguous_base(operand)
        return View(base, operand.shape, 0, strides(operand.shape))

    def strided(self, operand: Operand, groups: Sequence[Sequence[int]]) -> View:
        """Follow views as long as every group of axes keeps walking memory with one stride."""
        assert isinstance(operand, Node), "a literal operand of a library call was not materialised"
        index = tuple(Affine.var(f"i{a}") for a in range(len(operand.shape)))
        node: Node = operand
        best = self.contiguous(operand)
        while lowering(node) == "view" and node.operands and isinstance(node.operands[0], Node):
            if node.prim.name == "pad":
                break
            inner = view_index(node, index)
            if inner is None:
                break
            node, index = node.operands[0], inner
            offset = dot(index, strides(node.shape))
            steps = tuple(offset.factor(f"i{a}") for a in range(len(operand.shape)))
            if all(merges(g, operand.shape, steps) for g in groups) and lowering(node) != "view":
                best = View(node, operand.shape, offset.const, steps)
        return best


def graphs_of(node: Node) -> tuple[Graph, ...]:
    """Return the graphs in the parameters of a control node, in the order the code generator runs them."""
    params = node.params
    if node.prim is cond:
        return tuple(params["branches"])
    if node.prim is rewind:
        return (params["advance"], params["step"])
    condition = params.get("condition")
    return (params["body"],) if condition is None else (condition, params["body"])


def carries_from(node: Node) -> int:
    """Return the number of a loop's first operand that is a carry: one without a condition is given its rounds."""
    return int(node.prim is while_loop and node.params["condition"] is None)


def workspace_of(node: Node) -> list[tuple[str, str, int]]:
    """Return the names, dtypes and sizes of the buffers that a loop or branch needs besides its results."""
    assert isinstance(node.aval, Avals)
    turns = 0 if node.prim is cond else len(node.aval.parts) if node.prim is rewind else int(node.params["n_carry"])
    found = [("arena", "u8", 0), ("condition", "bool", 1)]
    found += [(f"carry{i}", NAMES[a.dtype], a.size) for i, a in enumerate(node.aval.parts[:turns])]
    if node.prim is rewind:
        slots = int(node.params["slots"])
        for i, operand in enumerate(node.operands[1 : 1 + node.params["n_carry"]]):
            sizes = {"now": 1, "next": 1, "slots": slots}
            found += [(f"{k}{i}", NAMES[operand.dtype], n * operand.aval.size) for k, n in sizes.items()]
        found.append(("rounds", "i64", slots))
    return found


def merges(axes: Sequence[int], shape: Sequence[int], steps: Sequence[int]) -> bool:
    """Say whether a group of axes, in this order, is one axis with one stride."""
    wide = [a for a in axes if shape[a] != 1]
    return all(steps[a] == steps[b] * shape[b] for a, b in zip(wide, wide[1:], strict=False))


def with_own_outputs(graph: Graph) -> tuple[Graph, list[Node]]:
    """Give every output of the graph a node of its own that is computed here: inputs, literals and repeats are
    copied."""
    nodes = list(graph.nodes)
    roots: list[Node] = []
    taken: set[Node] = set()
    for output in graph.outputs:
        base = output
        while isinstance(base, Node) and base.prim is reshape:
            base = base.operands[0]
        if isinstance(base, Literal) or lowering(base) in ("input", "view") or base in taken:
            node = copy_of(output)
            nodes.append(node)
            roots.append(node)
        else:
            assert isinstance(output, Node)
            taken.add(base)
            roots.append(output)
    return Graph(graph.name, graph.inputs, tuple(nodes), tuple(roots), graph.names), roots


def copy_of(output: Operand) -> Node:
    """Return a node that copies an input, a view, a literal or an output that stands twice."""
    if isinstance(output, Literal):
        return Node(broadcast, (output,), {"shape": (), "axes": ()}, output.aval)
    return Node(convert, (output,), {"dtype": output.dtype}, output.aval, output.where)


def build_plan(graph: Graph, threads: int, grain: Grain = lambda node: 0) -> Plan:
    """Schedule a simplified graph; `grain`: what is known of the blocks of library calls (`epilogue`)."""
    return Planner(graph, threads, grain).run()


__all__ = ["Call", "Plan", "Region", "Step", "View", "build_plan"]
