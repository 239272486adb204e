"""Drawings of graphs: valid text for Graphviz, forward and adjoint told apart, the user's lines as tooltips."""

from __future__ import annotations

import re

import numpy as np

import tracegrad as tg
from tracegrad.ir import Graph, to_dot

NODE = re.compile(r'\s*"(?P<name>[^"]+)" \[label="(?P<label>(?:[^"\\]|\\.)*)", (?P<style>.*)\];')
EDGE = re.compile(r'\s*"([^"]+)" -> "([^"]+)";')
REST = re.compile(r'(digraph|\s*subgraph) "[^"]+" \{|\s*\}|\s*rankdir=TB;|\s*label="[^"]+";')


def read(text: str) -> tuple[dict[str, tuple[str, str]], list[tuple[str, str]]]:
    """Return the nodes (label and style by name) and the edges; every line must be a statement."""
    nodes, edges = {}, []
    for line in text.split("\n"):
        if node := NODE.fullmatch(line):
            assert node["name"] not in nodes
            nodes[node["name"]] = node["label"], node["style"]
        elif edge := EDGE.fullmatch(line):
            edges.append((edge[1], edge[2]))
        else:
            assert REST.fullmatch(line), line
    assert text.count("{") - text.count("}") == 0
    assert all(a in nodes and b in nodes for a, b in edges)
    return nodes, edges


def loss(x):
    return np.mean(3.0 * (x - 2.0) ** 2)


def test_forward_and_adjoint_are_told_apart() -> None:
    x = np.ones((2, 2))
    forward = tg.jit(loss).lower(x).graph
    nodes, edges = read(to_dot(tg.value_and_grad(loss).lower(x).graph, forward))
    ellipses = [label for label, style in nodes.values() if "ellipse" in style]
    boxes = [label for label, style in nodes.values() if "shape=box" in style]
    assert len(ellipses) == len(forward.nodes) and ellipses[0] == r"sub(., 2.0)\nf64[2, 2]"
    assert len(boxes) == 5 and not set(ellipses) & set(boxes)
    line = loss.__code__.co_firstlineno + 1
    assert all(f'tooltip="test_dot.py:{line}"' in style for name, (_, style) in nodes.items() if name != "x")
    assert ("x", "a") in edges and nodes["result1"][0] == "result 1"
    assert "box" not in to_dot(forward)


def test_every_graph_has_the_method() -> None:
    graph = tg.compile(tg.grad(loss), np.ones(3)).graph
    assert isinstance(graph, Graph) and graph.to_dot() == to_dot(graph)  # type: ignore[attr-defined]


def test_bodies_of_loops_and_branches_are_drawn() -> None:
    def looped(x):
        y = tg.scan(lambda c, row: (tg.cond(c > 0.0, np.sin, np.cos, c) * row, c), 1.0, x)[0]
        return y + 2.0 if x.shape == (3,) else y

    nodes, edges = read(to_dot(tg.grad(looped).lower(np.ones(3)).graph))
    bodies = {name.rpartition(".")[0] for name in nodes}
    assert {"", "body_recording", "body_backward"} <= bodies
    assert any(name.count(".") == 2 for name in nodes)  # branches inside a body
    assert all(a.rpartition(".")[0] == b.rpartition(".")[0] for a, b in edges)


def test_results_that_are_literals_and_names_with_quotes() -> None:
    nodes, _ = read(to_dot(tg.jit(lambda d: (d['a"b'] * 2.0, 1.5)).lower({'a"b': 1.0}).graph))
    assert nodes["result1"][0] == r"result 1\nf64(1.5)"
    assert nodes["d_a_b"][0] == r"d_a_b\nf64"
