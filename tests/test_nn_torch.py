"""Modules and nn.functional against PyTorch: values and gradients of every parameter and input."""

from __future__ import annotations

import itertools

import numpy as np
import pytest

from tracegrad import nn, random
from tracegrad.nn import functional as F

torch = pytest.importorskip("torch")
from torch_peer import check, compare_module, normal  # noqa: E402 (it needs PyTorch)

pytestmark = pytest.mark.filterwarnings("ignore::UserWarning")
TF = torch.nn.functional
KEY = random.key(0)

ACTIVATIONS = [
    (F.relu, TF.relu),
    (lambda x: F.leaky_relu(x, 0.2), lambda x: TF.leaky_relu(x, 0.2)),
    (lambda x: F.elu(x, 0.7), lambda x: TF.elu(x, 0.7)),
    (F.gelu, TF.gelu),
    (lambda x: F.gelu(x, "tanh"), lambda x: TF.gelu(x, approximate="tanh")),
    (F.silu, TF.silu),
    (F.sigmoid, torch.sigmoid),
    (F.logsigmoid, TF.logsigmoid),
    (F.tanh, torch.tanh),
    (F.softplus, lambda x: TF.softplus(x, threshold=1000)),
    (lambda x: F.softplus(x, 3.0), lambda x: TF.softplus(x, 3.0, threshold=1000)),
    (lambda x: F.softmax(x, 0), lambda x: TF.softmax(x, 0)),
    (F.softmax, lambda x: TF.softmax(x, -1)),
    (lambda x: F.log_softmax(x, 1), lambda x: TF.log_softmax(x, 1)),
    (lambda x: F.normalize(x, dim=1), lambda x: TF.normalize(x, dim=1)),
    (lambda x: F.normalize(x, 1.0, 0), lambda x: TF.normalize(x, 1.0, 0)),
    (lambda x: F.normalize(x, 3.0, 0), lambda x: TF.normalize(x, 3.0, 0)),
    (lambda x: F.layer_norm(x, (3, 4)), lambda x: TF.layer_norm(x, (3, 4))),
    (lambda x: F.batch_norm(x, training=True), lambda x: TF.batch_norm(x, None, None, training=True)),
    (lambda x: F.flatten(x, 1), lambda x: torch.flatten(x, 1)),
]


@pytest.mark.parametrize(("ours", "theirs"), ACTIVATIONS, ids=range(len(ACTIVATIONS)))
def test_functions_of_one_array(ours, theirs):
    check(ours, theirs, normal(0, 2, 3, 4))


def test_gradients_at_zero():
    for ours, theirs in ACTIVATIONS[:3] + [(F.softplus, TF.softplus), (F.logsigmoid, TF.logsigmoid)]:
        check(ours, theirs, np.zeros(2))


def conv_cases():
    options = itertools.product(
        [1, 2], [0, 1, "same", "valid"], [1, 2], [1, 2], [True, False], ["zeros", "circular", "reflect", "replicate"]
    )
    for i, (stride, padding, dilation, groups, bias, mode) in enumerate(options):
        if padding == "same" and stride != 1 or i % 5 and mode != "zeros":
            continue
        yield stride, padding, dilation, groups, bias, mode


@pytest.mark.parametrize(("stride", "padding", "dilation", "groups", "bias", "mode"), list(conv_cases()))
def test_conv1d_options(stride, padding, dilation, groups, bias, mode):
    more = {"padding_mode": mode}
    arguments = (4, 6, 3, stride, padding, dilation, groups, bias)
    compare_module(
        nn.Conv1d(*arguments, dtype=np.float64, **more), torch.nn.Conv1d(*arguments, **more), normal(0, 2, 4, 9)
    )


CONV2D = [
    ((2, 4, 3), {}),
    ((2, 4, (3, 2), 2, 1), {}),
    ((2, 4, (2, 3), (1, 2), (0, 2), (2, 1)), {}),
    ((2, 4, 4), {"padding": "same"}),
    ((4, 4, 3), {"padding": 1, "groups": 4, "bias": False}),
    ((4, 8, 3), {"padding": (2, 1), "groups": 2, "padding_mode": "circular"}),
    ((2, 3, (3, 4)), {"padding": "same", "padding_mode": "replicate"}),
    ((2, 3, 3), {"padding": 1, "padding_mode": "reflect", "stride": 2}),
    ((2, 3, 1), {"stride": 2}),
]


@pytest.mark.parametrize(("arguments", "more"), CONV2D, ids=range(len(CONV2D)))
def test_conv2d_options(arguments, more):
    module = nn.Conv2d(*arguments, **more, dtype=np.float64)
    compare_module(module, torch.nn.Conv2d(*arguments, **more), normal(0, 2, arguments[0], 7, 8))


@pytest.mark.parametrize("case", [2, 5])
def test_conv2d_compiled(case):
    arguments, more = CONV2D[case]
    module = nn.Conv2d(*arguments, **more, key=KEY)
    x = normal(0, 2, arguments[0], 7, 8, dtype=np.float32)
    compare_module(module, torch.nn.Conv2d(*arguments, **more), x, compiled=True, tolerance=2e-5)


def test_unbatched_inputs():
    compare_module(nn.Conv1d(2, 3, 3, dtype=np.float64), torch.nn.Conv1d(2, 3, 3), normal(0, 2, 9))
    compare_module(nn.Conv2d(2, 3, 3, dtype=np.float64), torch.nn.Conv2d(2, 3, 3), normal(0, 2, 7, 8))
    compare_module(nn.MaxPool2d(2), torch.nn.MaxPool2d(2), normal(0, 2, 7, 8))


MODULES = [
    (nn.Linear(4, 3, dtype=np.float64), torch.nn.Linear(4, 3), (2, 5, 4)),
    (nn.Linear(4, 3, False, dtype=np.float64), torch.nn.Linear(4, 3, False), (4,)),
    (nn.LayerNorm((3, 4), dtype=np.float64), torch.nn.LayerNorm((3, 4)), (2, 3, 4)),
    (nn.LayerNorm(4, 1e-3, True, False, dtype=np.float64), torch.nn.LayerNorm(4, 1e-3, True, False), (2, 4)),
    (nn.MaxPool1d(3, 2, 1), torch.nn.MaxPool1d(3, 2, 1), (2, 3, 9)),
    (nn.MaxPool2d((3, 2), (2, 1), (1, 0)), torch.nn.MaxPool2d((3, 2), (2, 1), (1, 0)), (2, 3, 7, 8)),
    (nn.MaxPool2d(3, 2, 1, ceil_mode=True), torch.nn.MaxPool2d(3, 2, 1, ceil_mode=True), (2, 3, 8, 6)),
    (nn.AvgPool1d(3, 2, 1), torch.nn.AvgPool1d(3, 2, 1), (2, 3, 9)),
    (nn.AvgPool2d(2), torch.nn.AvgPool2d(2), (2, 3, 7, 8)),
    (nn.AvgPool2d(3, 2, 1, False, False), torch.nn.AvgPool2d(3, 2, 1, False, False), (2, 3, 7, 8)),
    (nn.AvgPool2d(3, 2, 1, True, True), torch.nn.AvgPool2d(3, 2, 1, True, True), (2, 3, 8, 6)),
    (nn.AvgPool2d(3, 2, 1, True, False), torch.nn.AvgPool2d(3, 2, 1, True, False), (2, 3, 8, 6)),
    (nn.GELU("tanh"), torch.nn.GELU("tanh"), (3, 4)),
    (nn.Softmax(0), torch.nn.Softmax(0), (3, 4)),
    (nn.LogSoftmax(1), torch.nn.LogSoftmax(1), (3, 4)),
    (nn.Flatten(), torch.nn.Flatten(), (3, 4, 2)),
    (nn.Identity(54), torch.nn.Identity(54), (3, 4)),
]


@pytest.mark.parametrize(
    ("ours", "theirs", "shape"), MODULES, ids=[type(m[0]).__name__ + str(i) for i, m in enumerate(MODULES)]
)
def test_modules(ours, theirs, shape):
    compare_module(ours, theirs, normal(0, *shape))


def test_all_modules_in_one_compiled_function():
    modules = [(ours, theirs, normal(i, *shape)) for i, (ours, theirs, shape) in enumerate(MODULES)]
    names = [list(ours.named_parameters()) for ours, _, _ in modules]
    inputs = [x for _, _, x in modules]
    weights = [np.array(w) for ours, _, _ in modules for w in ours.named_parameters().values()]

    def given(values):
        """Return the parameters of each module by name."""
        rest = iter(values[len(inputs) :])
        return [{name: next(rest) for name in own} for own in names]

    def ours(*values):
        loaded = [m.load_state_dict(w) for (m, _, _), w in zip(modules, given(values), strict=True)]
        return [m(x) for m, x in zip(loaded, values, strict=False)]

    def theirs(*values):
        call = torch.func.functional_call
        return [call(m, w, (x,)) for (_, m, _), w, x in zip(modules, given(values), values, strict=False)]

    check(ours, theirs, *inputs, *weights, compiled=True)


@pytest.mark.parametrize(
    ("ours", "theirs", "fan_in"),
    [
        (lambda: nn.Linear(300, 2000), lambda: torch.nn.Linear(300, 2000), 300),
        (lambda: nn.Conv2d(16, 640, 5), lambda: torch.nn.Conv2d(16, 640, 5), 400),
    ],
    ids=["Linear", "Conv2d"],
)
def test_default_initialisation_has_torchs_distribution(ours, theirs, fan_in):
    bound = fan_in**-0.5
    for a, b in zip(ours().named_parameters().values(), theirs().parameters(), strict=True):
        assert a.dtype == np.float32
        for values in (a.ravel(), b.detach().numpy().ravel()):
            places = np.sort(values / bound + 1) / 2  # uniform in [0, 1] where the values are in [-bound, bound]
            expected = (np.arange(places.size) + 0.5) / places.size
            assert np.abs(places - expected).max() < 2 / places.size**0.5  # Kolmogorov and Smirnov: once in 1,500
            assert places[0] > -1e-6 and places[-1] < 1 + 1e-6


@pytest.mark.parametrize("reduction", ["mean", "sum", "none"])
@pytest.mark.parametrize("smoothing", [0.0, 0.2])
@pytest.mark.parametrize("weighted", [False, True])
def test_cross_entropy_options(reduction, smoothing, weighted):
    weight = np.array([0.5, 2.0, 1.0, 3.0]) if weighted else None
    theirs_weight = torch.tensor(weight) if weighted else None
    more = {"reduction": reduction, "label_smoothing": smoothing}
    for shape in [(5, 4), (2, 4, 3, 2), (4,)]:
        rows = shape[:1] + shape[2:] if len(shape) > 1 else ()
        y = np.random.default_rng(1).integers(0, 4, rows)
        for classes in [y, np.where(np.arange(y.size).reshape(rows) == 1, -100, y)]:
            check(lambda x, classes=classes: F.cross_entropy(x, classes, weight, **more),
                  lambda x, classes=classes: TF.cross_entropy(x, torch.as_tensor(classes), theirs_weight, **more),
                  normal(0, *shape))  # fmt: skip
        p = np.moveaxis(np.random.default_rng(2).dirichlet(np.ones(4), rows), -1, 0 if len(shape) == 1 else 1)
        check(
            lambda x, p: F.cross_entropy(x, p, weight, **more),
            lambda x, p: TF.cross_entropy(x, p, theirs_weight, **more),
            normal(0, *shape),
            np.ascontiguousarray(p),
        )


@pytest.mark.parametrize("compiled", [False, True])
def test_cross_entropy_float32(compiled):
    y = np.random.default_rng(1).integers(0, 10, 32)
    check(lambda x: F.cross_entropy(x, y), lambda x: TF.cross_entropy(x, torch.tensor(y)),
          normal(0, 32, 10, dtype=np.float32), compiled=compiled, tolerance=1e-5)  # fmt: skip


@pytest.mark.parametrize("reduction", ["mean", "sum", "none"])
def test_other_losses(reduction):
    x, t, p = normal(0, 4, 3), normal(1, 4, 3), np.random.default_rng(2).dirichlet(np.ones(3), 4)
    w = np.random.default_rng(3).uniform(0.5, 2, 3)
    y = np.array([0, 2, 1, -100])
    more = {"reduction": reduction}
    for ours, theirs, target in [
        (F.mse_loss, TF.mse_loss, t),
        (F.l1_loss, TF.l1_loss, t),
        (F.huber_loss, TF.huber_loss, t),
        (F.smooth_l1_loss, TF.smooth_l1_loss, t),
        (F.kl_div, TF.kl_div, p),
        (F.binary_cross_entropy_with_logits, TF.binary_cross_entropy_with_logits, p),
    ]:
        check(lambda x, t, f=ours: f(x, t, **more), lambda x, t, f=theirs: f(x, t, **more), x, target)
    check(lambda x, t: F.huber_loss(x, t, reduction, 0.3), lambda x, t: TF.huber_loss(x, t, reduction, 0.3), x, t)
    check(
        lambda x, t: F.kl_div(x, t, log_target=True, **more),
        lambda x, t: TF.kl_div(x, t, log_target=True, **more),
        x,
        t,
    )
    theirs_w = torch.tensor(w)
    check(
        lambda x, t: F.binary_cross_entropy_with_logits(x, t, w, pos_weight=w, **more),
        lambda x, t: TF.binary_cross_entropy_with_logits(x, t, theirs_w, pos_weight=theirs_w, **more),
        x,
        p,
    )
    check(lambda x: F.nll_loss(x, y, w, **more), lambda x: TF.nll_loss(x, torch.tensor(y), torch.tensor(w), **more), x)


@pytest.mark.parametrize("mode", ["constant", "circular", "reflect", "replicate"])
def test_pad_gradients(mode):
    check(lambda x: F.pad(x, (2, 1, 1, 3), mode), lambda x: TF.pad(x, (2, 1, 1, 3), mode), normal(0, 2, 3, 5, 6))
