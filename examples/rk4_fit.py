"""Fit the four rates of a predator-prey model to noisy observations, through the solver.

The Lotka-Volterra equations, u' = a u - b u v and v' = d u v - g v, are solved by classical Runge-Kutta steps inside a
compiled loop; the loss compares the solution with the data, its gradient runs the loop backwards, and Adam moves the
logarithms of the rates, which keeps them positive. The whole step is compiled once.

    python examples/rk4_fit.py [--smoke]
"""

import argparse

import numpy as np

import tracegrad as tg
from tracegrad import optim

TRUE = {"a": 1.1, "b": 0.4, "d": 0.1, "g": 0.4}
START = np.array([10.0, 5.0])
STEPS, SPAN, NOISE = 480, 12.0, 0.1


def slope(rates, y):
    u, v = y[0], y[1]
    return np.stack([rates["a"] * u - rates["b"] * u * v, rates["d"] * u * v - rates["g"] * v])


def solve(rates, start):
    """Return the states after each of the steps [STEPS, 2]."""
    h = SPAN / STEPS

    def rk4(y, _):
        k1 = slope(rates, y)
        k2 = slope(rates, y + 0.5 * h * k1)
        k3 = slope(rates, y + 0.5 * h * k2)
        k4 = slope(rates, y + h * k3)
        y = y + h / 6.0 * (k1 + 2.0 * k2 + 2.0 * k3 + k4)
        return y, y

    return tg.scan(rk4, start, length=STEPS)[1]


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--smoke", action="store_true", help="fewer updates")
    updates = 600 if parser.parse_args().smoke else 1500

    exact = tg.jit(lambda rates: solve(rates, START))(TRUE)
    data = exact + NOISE * np.random.default_rng(0).normal(size=exact.shape)

    optimizer = optim.adam(optim.cosine(0.05, updates))
    logs = {name: np.log(0.7 * value) for name, value in TRUE.items()}
    state = optimizer.init(logs)

    def rates_of(logs):
        return {name: np.exp(value) for name, value in logs.items()}

    def fit_step(logs, state, data):
        def loss(logs):
            return np.mean((solve(rates_of(logs), START) - data) ** 2)

        value, gradients = tg.value_and_grad(loss)(logs)
        logs, state = optimizer.step(gradients, state, logs)
        return logs, state, value

    step = tg.compile(fit_step, logs, state, data)
    for update in range(updates):
        logs, state, loss = step(logs, state, data)
        if update % (updates // 5) == 0:
            print(f"update {update:4d}: mean squared error {loss:9.4f}")

    found = rates_of(logs)
    print(f"after {updates}: mean squared error {loss:.4f}, the noise's is {NOISE**2:.4f}")
    for name, value in TRUE.items():
        print(f"  {name}: {found[name]:.4f}, true {value}")
        assert abs(found[name] / value - 1.0) < 0.03
    assert loss < 1.3 * NOISE**2


if __name__ == "__main__":
    main()
