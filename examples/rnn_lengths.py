"""Train a recurrent network on sequences of varying length: the adding problem (Hochreiter and Schmidhuber, 1997).

Each step of a sequence carries a number in [0, 1] and a mark; exactly two steps are marked, and the answer, after the
last step, is the sum of their numbers. Sequences are padded to one length; where the mask says padding, the state of
the gated unit (GRU) stays as it is. Always answering 1 has a mean squared error of 1/6; a sequence counts as solved
when the answer is within 0.1.

    python examples/rnn_lengths.py [--smoke]
"""

import argparse

import numpy as np

import tracegrad as tg
from tracegrad import nn, optim, random
from tracegrad.nn import functional as F

WIDTH, BATCH, SHORTEST = 32, 64, 5


def adding_problem(rng, n, longest):
    """Return inputs [longest, n, 2], mask [longest, n] and answers [n]."""
    lengths = rng.integers(SHORTEST, longest + 1, n)
    mask = np.arange(longest)[:, None] < lengths
    numbers = rng.random((longest, n)) * mask
    marks = np.zeros((longest, n))
    for i, length in enumerate(lengths):
        marks[rng.choice(length, 2, replace=False), i] = 1.0
    x = np.stack([numbers, marks], axis=-1).astype(np.float32)
    return x, mask, (numbers * marks).sum(0).astype(np.float32)


class GRU(nn.Module):
    """A gated recurrent unit over masked sequences, and a linear layer on its last state."""

    def __init__(self, inputs, width, key):
        keys = random.split(key, 3)
        self.gates = nn.Linear(inputs + width, 2 * width, key=keys[0])
        self.fresh = nn.Linear(inputs + width, width, key=keys[1])
        self.out = nn.Linear(width, 1, key=keys[2])

    def __call__(self, x, mask):
        def cell(h, step):
            x_t, valid = step
            keep, reset = np.split(F.sigmoid(self.gates(np.concatenate([x_t, h], axis=1))), 2, axis=1)
            fresh = np.tanh(self.fresh(np.concatenate([x_t, reset * h], axis=1)))
            return np.where(valid[:, None], keep * h + (1.0 - keep) * fresh, h), None

        start = np.zeros((x.shape[1], WIDTH), np.float32)
        return self.out(tg.scan(cell, start, (x, mask))[0])[:, 0]


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--smoke", action="store_true", help="shorter sequences and fewer updates")
    smoke = parser.parse_args().smoke
    longest, updates, goal = (8, 250, 0.5) if smoke else (40, 4000, 0.95)

    model = GRU(2, WIDTH, random.key(0))
    optimizer = optim.chain(optim.clip_by_global_norm(1.0), optim.adam(optim.one_cycle(1e-2, updates)))
    state = optimizer.init(model)

    def train_step(model, state, x, mask, y):
        value, gradients = tg.value_and_grad(lambda model: np.mean((model(x, mask) - y) ** 2))(model)
        model, state = optimizer.step(gradients, state, model)
        return model, state, value

    rng = np.random.default_rng(1)
    step = tg.compile(train_step, model, state, *adding_problem(rng, BATCH, longest), donate=("model", "state"))
    for update in range(updates):
        model, state, loss = step(model, state, *adding_problem(rng, BATCH, longest))
        if update % (updates // 5) == 0:
            print(f"update {update:5d}: mean squared error {loss:.4f}")

    x, mask, y = adding_problem(np.random.default_rng(2), 1000, longest)
    error = np.abs(tg.jit(lambda model, x, mask: model(x, mask))(model, x, mask) - y)
    solved = np.mean(error < 0.1)
    print(f"1000 unseen sequences of {SHORTEST} to {longest} steps: {100 * solved:.1f} % solved")
    print(f"mean squared error {np.mean(error**2):.5f}, of always answering 1: {np.mean((y - 1.0) ** 2):.4f}")
    assert solved > goal


if __name__ == "__main__":
    main()
