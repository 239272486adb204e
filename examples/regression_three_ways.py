"""Linear regression three ways: the gradient by hand, compiled from the loss, and from the tape.

The model is y = w x, the loss the mean of (w x - y)^2, and its gradient is mean(2 x (w x - y)). The three loops below
differ in one line, and find the same w, step by step.

    python examples/regression_three_ways.py [--smoke]
"""

import argparse

import numpy as np

import tracegrad as tg

X = np.array([1.0, 2.0, 3.0, 4.0])
Y = 2.0 * X
RATE = 0.01


def loss(w):
    return np.mean((w * X - Y) ** 2)


def by_hand(rounds):
    w = 0.0
    for _ in range(rounds):
        yield w, loss(w)
        w -= RATE * np.mean(2.0 * X * (w * X - Y))


def compiled(rounds):
    w = 0.0
    value_and_gradient = tg.value_and_grad(loss)
    for _ in range(rounds):
        value, gradient = value_and_gradient(w)
        yield w, value
        w -= RATE * float(gradient)
    assert value_and_gradient.traces == 1


def on_the_tape(rounds):
    w = tg.tensor(0.0, requires_grad=True)
    for _ in range(rounds):
        value = loss(w)
        yield w.item(), value.item()
        value.backward()
        with tg.no_grad():
            w -= RATE * w.grad
        w.grad = None


def whole_loop_compiled(rounds):
    """Go one further: all rounds in one compiled program, which could be differentiated in turn."""

    @tg.jit
    def descend(w):
        return tg.fori_loop(0, rounds, lambda i, w: w - RATE * tg.grad(loss)(w), w)

    return descend(0.0)


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--smoke", action="store_true", help="fewer rounds")
    rounds = 50 if parser.parse_args().smoke else 100

    ways = {"by hand": by_hand, "compiled": compiled, "tape": on_the_tape}
    found = {name: list(way(rounds)) for name, way in ways.items()}
    print("round " + "".join(f"{name:>22}" for name in ways))
    print("      " + f"{'w':>12}{'loss':>10}" * len(ways))
    for i in range(0, rounds, 10):
        print(f"{i:5d} " + "".join(f"{found[name][i][0]:12.6f}{found[name][i][1]:10.6f}" for name in ways))
    for name in ways:
        np.testing.assert_allclose(found[name], found["by hand"], rtol=1e-12, atol=1e-15)

    last = whole_loop_compiled(rounds)
    print(f"all {rounds} rounds in one program: w = {last:.6f}; the true one is 2")
    assert abs(last - 2.0) < 0.01


if __name__ == "__main__":
    main()
