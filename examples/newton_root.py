"""Differentiate through Newton's method, whose number of rounds depends on the data.

Solve x^3 + a x = b for x: a plain `while` ends when a step is shorter than the tolerance. `tg.grad` goes back through
as many rounds as were made; nothing is compiled again when another input needs more of them. The implicit function
theorem gives the derivatives without the loop, dx/db = 1 / (3 x^2 + a) and dx/da = -x / (3 x^2 + a): both must agree.

    pip install "tracegrad[loops]" && python examples/newton_root.py [--smoke]
"""

import argparse

import numpy as np

import tracegrad as tg

TOLERANCE = 1e-12


def newton(a, b):
    """Return the root and the number of rounds that it took."""
    x, change, rounds = 1.0, 1.0, 0
    while np.abs(change) > TOLERANCE:
        change = (x**3 + a * x - b) / (3.0 * x**2 + a)
        x = x - change
        rounds += 1
    return x, rounds


def root(a, b):
    return newton(a, b)[0]


def theorem(a, b):
    """Return dx/da and dx/db from the implicit function theorem."""
    x = solve(a, b)[0]
    slope = 3.0 * x**2 + a
    return -x / slope, 1.0 / slope


solve = tg.jit(newton)
derivatives = tg.grad(root, argnums=(0, 1))


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--smoke", action="store_true", help="fewer random inputs")
    inputs = 20 if parser.parse_args().smoke else 1000

    print("     a        b   rounds         root        dx/da        dx/db")
    for a, b in [(1.0, 2.0), (0.1, 5.0), (4.0, -300.0), (2.0, 1e6)]:
        (x, rounds), (by_a, by_b) = solve(a, b), derivatives(a, b)
        print(f"{a:6.1f} {b:8.0f} {rounds:8d} {x:12.6f} {by_a:12.4e} {by_b:12.4e}")
        np.testing.assert_allclose((by_a, by_b), theorem(a, b), rtol=1e-9)

    rng = np.random.default_rng(0)
    worst, counts = 0.0, set()
    for _ in range(inputs):
        a, b = float(rng.uniform(0.1, 5.0)), 10.0 ** float(rng.uniform(-2, 6))
        found, expected = derivatives(a, b), theorem(a, b)
        worst = max(worst, float(np.max(np.abs(np.divide(found, expected) - 1.0))))
        counts.add(int(solve(a, b)[1]))
    print(f"{inputs} random equations, {min(counts)} to {max(counts)} rounds, one compile: {derivatives.traces == 1}")
    print(f"largest difference from the implicit function theorem: {worst:.1e}")
    assert derivatives.traces == 1 and len(counts) > 5 and worst < 1e-8


if __name__ == "__main__":
    main()
