"""Train a convolutional network on handwritten digits, the whole training step compiled ahead of time.

`python examples/digits_cnn.py` needs `pip install "tracegrad[examples]"`. It is the core of `python -m tracegrad demo`,
without progress bar, measurements and picture. `--smoke` makes two epochs only.
"""

import sys

import numpy as np

import tracegrad as tg
from tracegrad import data, nn, optim, random
from tracegrad.nn import functional as F

EPOCHS, BATCH = 20, 32
if "--smoke" in sys.argv:
    EPOCHS = 2

# Real data: 1797 images [1, 8, 8], a fifth of them held out; mean 0 and deviation 1.
split = data.digits(test_fraction=0.2, seed=0)
normalise = data.Normaliser.fit(split.train_x, axis=(0, 2, 3))
train_x, test_x = normalise(split.train_x), normalise(split.test_x)

# A model is a pytree of its parameters: an argument of the step like any other.
model = nn.Sequential(
    nn.Conv2d(1, 16, 3, padding="same", key=random.key(1)),
    nn.ReLU(),
    nn.Conv2d(16, 32, 3, padding="same", key=random.key(2)),
    nn.ReLU(),
    nn.MaxPool2d(2),
    nn.Flatten(),
    nn.Dropout(0.5),
    nn.Linear(512, 64, key=random.key(3)),
    nn.ReLU(),
    nn.Linear(64, 10, key=random.key(4)),
)
steps = EPOCHS * (len(train_x) // BATCH)
optimizer = optim.adam(optim.one_cycle(4e-3, steps))
state = optimizer.init(model)


def train_step(model, state, key, x, y):
    """Forward, backward and Adam; the count in the state makes every step's dropout mask a fresh one."""

    def loss(model):
        scores = model(x, key=random.fold_in(key, state.count), training=True)
        return F.cross_entropy(scores, y)

    value, gradients = tg.value_and_grad(loss)(model)
    model, state = optimizer.step(gradients, state, model)
    return model, state, value


# Compiled for these shapes, once; the memory of model and state is reused for their successors.
key = random.key(5)
step = tg.compile(
    train_step,
    model,
    state,
    key,
    tg.spec((BATCH, 1, 8, 8), np.float32),
    tg.spec((BATCH,), np.int64),
    donate=("model", "state"),
)
print(step)

for epoch in range(EPOCHS):
    losses = []
    for x, y in data.batches((train_x, split.train_y), BATCH, seed=0, epoch=epoch):
        model, state, value = step(model, state, key, x, y)
        losses.append(value)
    if epoch % 5 == 4:
        print(f"epoch {epoch + 1:2d}: loss {np.mean(losses):.4f}")

scores = tg.jit(lambda model, x: model(x))(model, test_x)
accuracy = np.mean(np.argmax(scores, axis=1) == split.test_y)
print(f"held-out accuracy {100 * accuracy:.2f} %")
