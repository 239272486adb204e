"""Back-propagation through two layers, derived by hand, against the compiled gradient and the tape's.

    z1 = x W1 + b1     h = max(z1, 0)     z2 = h W2 + b2     p = softmax(z2)     loss = mean over rows of -log p[label]

Going back, each line is the transpose of one line above: dz2 = (p - onehot) / n, dW2 = h^T dz2, db2 = sum of dz2 over
rows, dh = dz2 W2^T, dz1 = dh where z1 > 0, dW1 = x^T dz1, db1 = sum of dz1 over rows.

    python examples/two_layers.py [--smoke]
"""

import argparse

import numpy as np

import tracegrad as tg
from tracegrad.nn import functional as F


def loss(weights, x, labels):
    w1, b1, w2, b2 = weights
    h = np.maximum(x @ w1 + b1, 0.0)
    return F.cross_entropy(h @ w2 + b2, labels)


def by_hand(weights, x, labels):
    """Return loss and gradients, as derived above."""
    w1, b1, w2, b2 = weights
    n = len(x)
    z1 = x @ w1 + b1
    h = np.maximum(z1, 0.0)
    z2 = h @ w2 + b2
    shifted = np.exp(z2 - z2.max(axis=1, keepdims=True))
    p = shifted / shifted.sum(axis=1, keepdims=True)

    dz2 = (p - np.eye(p.shape[1])[labels]) / n
    dh = dz2 @ w2.T
    dz1 = np.where(z1 > 0.0, dh, 0.0)
    return -np.mean(np.log(p[np.arange(n), labels])), (x.T @ dz1, dz1.sum(0), h.T @ dz2, dz2.sum(0))


def by_tape(weights, x, labels):
    """Record the same function op by op, and walk back."""
    tensors = [tg.tensor(w, requires_grad=True) for w in weights]
    value = loss(tensors, x, labels)
    value.backward()
    return value.item(), tuple(t.grad.numpy() for t in tensors)


compiled = tg.value_and_grad(loss)


def blobs(rng, n):
    """Return points around three centres, in classes that no straight line separates, and their labels."""
    angle = rng.uniform(0.0, 2.0 * np.pi, n)
    labels = rng.integers(0, 3, n)
    radius = 1.0 + labels + 0.2 * rng.normal(size=n)
    return np.stack([radius * np.cos(angle), radius * np.sin(angle)], axis=1), labels


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--smoke", action="store_true", help="fewer steps")
    steps = 60 if parser.parse_args().smoke else 500

    rng = np.random.default_rng(0)
    weights = (rng.normal(size=(2, 32)), np.zeros(32), rng.normal(size=(32, 3)) / 6.0, np.zeros(3))
    x, labels = blobs(rng, 300)

    expected = by_hand(weights, x, labels)
    print("largest difference from the derivation by hand")
    print("          " + "".join(f"{name:>11}" for name in ("loss", "dW1", "db1", "dW2", "db2")))
    for name, way in (("compiled", compiled), ("tape", by_tape)):
        value, gradients = way(weights, x, labels)
        pairs = zip(gradients, expected[1], strict=True)
        differences = [abs(value - expected[0]), *(np.abs(g - e).max() for g, e in pairs)]
        print(f"{name:10}" + "".join(f"{d:11.1e}" for d in differences))
        assert max(differences) < 1e-12

    program = tg.compile(tg.value_and_grad(loss), weights, x, labels)
    print(f"\nthe compiled step is {program.kernels} kernels and library calls; its graph begins")
    print("\n".join(str(program.graph).splitlines()[1:4]))

    for _ in range(steps):
        value, gradients = program(weights, x, labels)
        weights = tuple(w - 0.3 * g for w, g in zip(weights, gradients, strict=True))
    w1, b1, w2, b2 = weights
    right = np.mean(np.argmax(np.maximum(x @ w1 + b1, 0.0) @ w2 + b2, axis=1) == labels)
    print(f"\nafter {steps} steps: loss {value:.3f}, {100 * right:.0f} % of the points right")
    assert value < expected[0]


if __name__ == "__main__":
    main()
