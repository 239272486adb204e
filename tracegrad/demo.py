"""The demonstration: a small convolutional network learns handwritten digits, in one compiled call per training step.

`python -m tracegrad demo` trains on the 1797 digits that scikit-learn carries, a fifth of them held out, and prints
what compiling costs and what it gains. `--smoke` does the same in a few seconds on fewer steps.
"""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

import tracegrad as tg
from tracegrad import data, nn, optim, random
from tracegrad.nn import functional as F

CLASSES = 10


@dataclass(frozen=True)
class Options:
    """What the command line sets."""

    epochs: int = 30
    batch: int = 32
    seed: int = 0
    smoke: bool = False
    plot: Path | None = Path("tracegrad-demo.png")


@dataclass(frozen=True)
class Report:
    """What a run found out; times in seconds per step."""

    accuracy: float
    losses: list[float]
    compile_time: float
    compiled: float
    eager: float

    @property
    def ratio(self) -> float:
        """How many times faster a compiled step is."""
        return self.eager / self.compiled


def network(key: Any) -> nn.Sequential:
    """Return the untrained network: images [n, 1, 8, 8] to scores [n, 10]."""
    k = random.split(key, 4)
    return nn.Sequential(
        nn.Conv2d(1, 16, 3, padding="same", key=k[0]),
        nn.ReLU(),
        nn.Conv2d(16, 32, 3, padding="same", key=k[1]),
        nn.ReLU(),
        nn.MaxPool2d(2),
        nn.Flatten(),
        nn.Dropout(0.5),
        nn.Linear(512, 64, key=k[2]),
        nn.ReLU(),
        nn.Linear(64, CLASSES, key=k[3]),
    )


def training_step(steps: int) -> tuple[optim.Optimizer, Callable[..., Any]]:
    """Return the optimizer, and the step to compile: forward, backward, Adam."""
    optimizer = optim.adam(optim.one_cycle(4e-3, max(steps, 4)))

    def step(model: Any, state: Any, key: Any, x: Any, y: Any) -> Any:
        def loss(model: Any) -> Any:
            drops = random.fold_in(key, state.count)
            return F.cross_entropy(model(x, key=drops, training=True), y)

        value, gradients = tg.value_and_grad(loss)(model)
        model, after = optimizer.step(gradients, state, model)
        return model, after, value

    return optimizer, step


def shifted(x: Any, key: Any) -> Any:
    """Move every image by up to one pixel in both directions; what enters is background."""
    moves = np.asarray(random.randint(key, -1, 2, (len(x), 2)))
    wide = np.pad(x, ((0, 0), (0, 0), (1, 1), (1, 1)))
    rows = moves[:, :1] + 1 + np.arange(x.shape[2])
    columns = moves[:, 1:] + 1 + np.arange(x.shape[3])
    n = np.arange(len(x))
    return wide[n[:, None, None], 0, rows[:, :, None], columns[:, None, :]][:, None]


def minibatches(split: data.Split, options: Options, epochs: int) -> Iterator[tuple[Any, Any]]:
    """Yield every batch of every epoch, shuffled and shifted."""
    key = random.key(options.seed + 1)
    for epoch in range(epochs):
        moved = shifted(split.train_x, random.fold_in(key, epoch))
        yield from data.batches((moved, split.train_y), options.batch, key=key, epoch=epoch)


def run(options: Options, show: Callable[[str], None] = print) -> Report:
    """Train, measure, and write the picture; `show` prints one line."""
    split = data.digits(seed=options.seed)
    fit = data.Normaliser.fit(split.train_x, (0, 2, 3))
    split = data.Split(fit(split.train_x), split.train_y, fit(split.test_x), split.test_y)
    epochs = min(options.epochs, 3) if options.smoke else options.epochs
    steps = epochs * (len(split.train_x) // options.batch)
    model = network(random.key(options.seed))
    optimizer, step = training_step(steps)
    state = optimizer.init(model)
    key = random.key(options.seed + 2)

    example = next(minibatches(split, options, 1))
    began = time.perf_counter()
    compiled = tg.compile(step, model, state, key, *example, donate=("model", "state"))
    compile_time = time.perf_counter() - began
    show(f"compiled the training step in {compile_time:.2f} s: {compiled!r}")

    eager = eager_time(step, (model, state, key, *example), 3 if options.smoke else 20)
    losses: list[float] = []
    times: list[float] = []
    for x, y in progress(minibatches(split, options, epochs), steps):
        began = time.perf_counter()
        model, state, value = compiled(model, state, key, x, y)
        times.append(time.perf_counter() - began)
        losses.append(float(value))
    accuracy = float((np.argmax(tg.jit(network_scores)(model, split.test_x), -1) == split.test_y).mean())
    report = Report(accuracy, losses, compile_time, statistics.median(times), eager)
    held = len(split.test_y)
    show(f"held-out accuracy {100 * accuracy:.2f} % of {held} digits, after {steps} steps of {options.batch}")
    milliseconds = [f"{1e3 * seconds:.3f} ms" for seconds in (report.compiled, eager)]
    show(f"one step: compiled {milliseconds[0]}, eager {milliseconds[1]}, {report.ratio:.1f} times faster")
    if options.plot is not None:
        show(draw(losses, options.plot))
    return report


def network_scores(model: Any, x: Any) -> Any:
    return model(x)


def eager_time(step: Callable[..., Any], arguments: tuple[Any, ...], rounds: int) -> float:
    """Return the median seconds of the step run op by op in NumPy."""
    times = []
    with tg.eager():
        for _ in range(rounds + 1):
            began = time.perf_counter()
            step(*arguments)
            times.append(time.perf_counter() - began)
    return statistics.median(times[1:])


def progress(batches: Iterable[Any], total: int) -> Iterator[Any]:
    """Pass batches on behind a progress bar: rich's, else tqdm's, else lines of text."""
    try:
        from rich.progress import track
    except ImportError:
        try:
            from tqdm import tqdm
        except ImportError:
            yield from reported(batches, total)
            return
        yield from tqdm(batches, total=total, desc="training")
        return
    yield from track(batches, total=total, description="training")


def reported(batches: Iterable[Any], total: int) -> Iterator[Any]:
    """Pass batches on and print ten lines on the way."""
    for n, batch in enumerate(batches, 1):
        yield batch
        if n % max(1, total // 10) == 0:
            print(f"training {100 * n // total:3d} %", flush=True)


def draw(losses: list[float], path: Path) -> str:
    """Write the loss curve as a picture; return what to tell the user."""
    try:
        import matplotlib
    except ImportError:
        return 'no picture: matplotlib is not installed; fix: pip install "tracegrad[examples]"'
    matplotlib.use("Agg")
    from matplotlib import pyplot

    figure, axes = pyplot.subplots(figsize=(7, 4), constrained_layout=True)
    axes.plot(losses, linewidth=0.6, alpha=0.4, label="each step")
    window = max(1, len(losses) // 50)
    means = np.convolve(losses, np.full(window, 1.0 / window), "valid")
    axes.plot(np.arange(len(means)) + window - 1, means, linewidth=1.6, label=f"mean of {window}")
    axes.set(
        xlabel="training step", ylabel="cross-entropy", yscale="log", title="Digits: loss of the compiled training step"
    )
    axes.legend()
    figure.savefig(path, dpi=150)
    pyplot.close(figure)
    return f"the loss curve is in {path}"
