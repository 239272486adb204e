"""Gradients of your own: when the derivative of what is computed is not what you want.

1. Three small functions as classes: add copies the cotangent, split sums the cotangents, max gives it to the winner.
2. log(1 + exp(x)) by its formula: its derivative overflows to NaN for large x, the rule written by hand does not.
3. Rounding has the derivative 0 almost everywhere; passed straight through, weights of few bits can be trained.

All of it is traced into the same compiled program as the code around it; nothing is called back.

    python examples/custom_gradients.py [--smoke]
"""

import argparse

import numpy as np

import tracegrad as tg


class Add(tg.Function):
    @staticmethod
    def forward(ctx, a, b):
        return a + b

    @staticmethod
    def backward(ctx, grad):
        return grad, grad


class Split(tg.Function):
    @staticmethod
    def forward(ctx, x):
        return x, x

    @staticmethod
    def backward(ctx, first, second):
        return first + second


class Max(tg.Function):
    @staticmethod
    def forward(ctx, x):
        winner = np.argmax(x)
        ctx.save_for_backward(winner)
        ctx.size = x.shape[0]
        return x[winner]

    @staticmethod
    def backward(ctx, grad):
        (winner,) = ctx.saved_tensors
        return np.where(np.arange(ctx.size) == winner, grad, 0.0)


def naive(x):
    return np.log(1.0 + np.exp(x))


@tg.custom_vjp
def log1pexp(x):
    return np.maximum(x, 0.0) + np.log1p(np.exp(-np.abs(x)))


log1pexp.defvjp(lambda x: (log1pexp(x), x), lambda x, ct: (ct / (1.0 + np.exp(-x)),))


@tg.custom_vjp
def quantised(w):
    return np.round(w * 4.0) / 4.0


quantised.defvjp(lambda w: (quantised(w), None), lambda _, ct: (ct,))


def train(rounding, steps):
    """Fit y = x @ w with weights that are rounded to quarters; return the loss of the rounded weights."""
    rng = np.random.default_rng(0)
    x, w_true = rng.normal(size=(200, 8)), rng.normal(size=8)
    y = x @ w_true
    loss = lambda w: np.mean((x @ rounding(w) - y) ** 2)
    step = tg.jit(lambda w: w - 0.05 * tg.grad(loss)(w))
    w = np.zeros(8)
    for _ in range(steps):
        w = step(w)
    return loss(w), np.mean((x @ (np.round(w_true * 4.0) / 4.0) - y) ** 2)


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--smoke", action="store_true", help="fewer steps")
    steps = 100 if parser.parse_args().smoke else 400

    x, y = np.array([1.0, 5.0, -2.0]), np.array([0.5, 1.0, 4.0])
    print("add   copies the cotangent:", *tg.grad(lambda x, y: Add.apply(x, y).sum(), argnums=(0, 1))(x, y))
    print("split sums the cotangents: ", tg.grad(lambda x: (lambda a, b: a.sum() + (2 * b).sum())(*Split.apply(x)))(x))
    print("max   goes to the winner:  ", tg.grad(lambda x: Max.apply(x))(x))
    tracked = tg.tensor(x, requires_grad=True)
    Max.apply(tracked).backward()
    print("      and so on the tape:  ", tracked.grad.numpy())

    large = np.array([-1000.0, 0.0, 1000.0])
    print("\nd/dx log(1 + exp(x)) at   ", large)
    print("by its formula:           ", tg.grad(lambda x: naive(x).sum())(large))
    stable = tg.grad(lambda x: log1pexp(x).sum())(large)
    print("with its own rule:        ", stable)
    np.testing.assert_allclose(stable, [0.0, 0.5, 1.0])
    print("second derivative at 0:   ", tg.grad(tg.grad(log1pexp))(0.0), "(the rule is made of operations)")

    plain, _ = train(lambda w: np.round(w * 4.0) / 4.0, steps)
    straight, rounded = train(quantised, steps)
    print(f"\nweights of quarters: loss {plain:.3f} with the true derivative of rounding, which is 0")
    print(f"                     loss {straight:.3f} with the gradient passed straight through")
    print(f"                     loss {rounded:.3f} for the true weights, rounded")
    assert straight < 0.1 * plain


if __name__ == "__main__":
    main()
