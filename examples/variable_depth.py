"""A network whose depth depends on its input: as many layers as the sequence is long.

The layers share their weights, and the loop over them is plain Python. Where the length is a property of the array,
tracing writes the layers out, and each length is a program of its own. Where the length is a number in a padded batch,
the loop itself is compiled: one program, any depth, and the gradient goes back through as many layers as were run. The
task: is the number of ones in the sequence odd?

    pip install "tracegrad[loops]" && python examples/variable_depth.py [--smoke]
"""

import argparse

import numpy as np

import tracegrad as tg
from tracegrad import optim
from tracegrad.nn import functional as F

WIDTH, LONGEST = 8, 6


def layer(w, h, element):
    return np.tanh(w["hidden"] @ h + element * (w["gate"] @ h) + w["bias"])


def written_out(w, x):
    """One layer per element: the shape of x says how many there are."""
    h = np.ones(WIDTH)
    for element in x:
        h = layer(w, h, element)
    return w["output"] @ h


def network(w, padded, length):
    """The same, where only the compiled program knows how many layers there will be."""
    h, i = np.ones(WIDTH), 0
    while i < length:
        h = layer(w, h, padded[i])
        i += 1
    return w["output"] @ h


def loss(w, padded, length, odd):
    """log(1 + exp(-s)) for the score s of the right answer."""
    return F.softplus(-(2.0 * odd - 1.0) * network(w, padded, length))


def draw(rng):
    length = int(rng.integers(1, LONGEST + 1))
    bits = rng.integers(0, 2, length)
    return np.concatenate([bits, np.zeros(LONGEST - length)]), length, float(bits.sum() % 2)


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--smoke", action="store_true", help="fewer steps")
    steps = 1500 if parser.parse_args().smoke else 10000

    rng = np.random.default_rng(2)
    small = lambda *shape: rng.normal(size=shape) / np.sqrt(WIDTH)
    w = {"hidden": small(WIDTH, WIDTH), "gate": small(WIDTH, WIDTH), "bias": small(WIDTH), "output": small(WIDTH)}

    padded, _, _ = draw(rng)
    print("length   layers in the graph   largest difference of the gradients")
    for n in range(1, LONGEST + 1):
        by_shape = tg.grad(written_out)
        graph = by_shape.lower(w, padded[:n]).graph
        layers = sum(node.prim.name == "tanh" for node in graph.nodes)
        one, other = by_shape(w, padded[:n]), tg.grad(network)(w, padded, n)
        worst = max(np.abs(one[name] - other[name]).max() for name in w)
        print(f"{n:6d} {layers:21d} {worst:37.1e}")
        assert worst < 1e-12

    optimizer = optim.adam(0.01)
    state = optimizer.init(w)

    @tg.jit
    def step(w, state, padded, length, odd):
        value, gradient = tg.value_and_grad(loss)(w, padded, length, odd)
        return *optimizer.step(gradient, state, w), value

    losses = []
    for i in range(steps):
        w, state, value = step(w, state, *draw(rng))
        losses.append(value)
        if (i + 1) % (steps // 5) == 0:
            print(f"step {i + 1:5d}: loss {np.mean(losses[-steps // 5 :]):.4f}")
    run = tg.jit(network)
    right = np.mean([(run(w, x, n) > 0) == (odd > 0) for x, n, odd in (draw(rng) for _ in range(200))])
    print(f"{100 * right:.0f} % of new sequences right; programs compiled for all depths: {step.traces}")
    assert step.traces == 1 and losses[-1] < losses[0]


if __name__ == "__main__":
    main()
