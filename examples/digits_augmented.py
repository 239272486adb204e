"""Handwritten digits from few examples: the training images are shifted at random, inside the compiled step.

The augmentation is ordinary code with explicit keys, so it is traced, compiled and fused with the rest of the step;
every step draws anew from the same key and its own number, and nothing is compiled again. With 200 training images
the network learns them by heart; with a fresh shift and noise in every step it cannot, and does better on new ones.

    pip install "tracegrad[examples]" && python examples/digits_augmented.py [--smoke]
"""

import argparse

import numpy as np

import tracegrad as tg
from tracegrad import data, nn, optim, random
from tracegrad.nn import functional as F

EXAMPLES, BATCH = 200, 50


def augmented(key, images):
    """Shift every image by up to one pixel in each direction, the border filled, and add a little noise."""
    n, _, height, width = images.shape
    shift_key, noise_key = random.split(key)
    shift = random.randint(shift_key, 0, 3, (n, 2))
    padded = F.pad(images, (1, 1, 1, 1), mode="replicate")
    rows = shift[:, 0, None] + np.arange(height)
    columns = shift[:, 1, None] + np.arange(width)
    moved = padded[np.arange(n)[:, None, None], 0, rows[:, :, None], columns[:, None, :]]
    return moved[:, None] + 0.1 * random.normal(noise_key, images.shape, np.float32)


def network():
    return nn.Sequential(
        nn.Conv2d(1, 16, 3, padding="same", key=random.key(1)),
        nn.ReLU(),
        nn.MaxPool2d(2),
        nn.Conv2d(16, 32, 3, padding="same", key=random.key(2)),
        nn.ReLU(),
        nn.Flatten(),
        nn.Linear(512, 10, key=random.key(3)),
    )


def train(train_x, train_y, epochs, augment):
    """Return the trained network, and how often the step was compiled."""
    model = network()
    optimizer = optim.adam(optim.cosine(3e-3, epochs * (EXAMPLES // BATCH)))
    state = optimizer.init(model)
    key = random.key(4)

    @tg.jit
    def step(model, state, key, x, y):
        if augment:
            x = augmented(random.fold_in(key, state.count), x)
        loss = lambda model: F.cross_entropy(model(x), y)
        value, gradients = tg.value_and_grad(loss)(model)
        return *optimizer.step(gradients, state, model), value

    for epoch in range(epochs):
        for x, y in data.batches((train_x, train_y), BATCH, seed=0, epoch=epoch):
            model, state, value = step(model, state, key, x, y)
    print(f"{'with' if augment else 'without'} augmentation: loss of the last step {value:.4f}", end="")
    return model, step.traces


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--smoke", action="store_true", help="fewer epochs")
    epochs = 15 if parser.parse_args().smoke else 150

    split = data.digits(test_fraction=0.5, seed=0)
    normalise = data.Normaliser.fit(split.train_x, axis=(0, 2, 3))
    train_x, train_y = normalise(split.train_x)[:EXAMPLES], split.train_y[:EXAMPLES]
    test_x, test_y = normalise(split.test_x), split.test_y

    for augment in (False, True):
        model, traces = train(train_x, train_y, epochs, augment)
        scores = tg.jit(lambda model, x: model(x))(model, test_x)
        accuracy = np.mean(np.argmax(scores, axis=1) == test_y)
        print(f", {100 * accuracy:.1f} % of {len(test_y)} new images right; {traces} program")
        assert traces == 1 and accuracy > 0.8


if __name__ == "__main__":
    main()
