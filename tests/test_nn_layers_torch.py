"""Layers with state, recurrence or attention against PyTorch: outputs, gradients, and what they keep."""

from __future__ import annotations

import inspect

import numpy as np
import pytest

from tracegrad import nn, random
from tracegrad.nn import functional as F

torch = pytest.importorskip("torch")
from torch_peer import assert_close, check, compare_module, normal  # noqa: E402 (it needs PyTorch)

pytestmark = pytest.mark.filterwarnings("ignore::UserWarning")
TF = torch.nn.functional
F64 = {"dtype": np.float64}


# --- normalisation ----------------------------------------------------------------------------------------------------
BATCH_NORMS = [
    (nn.BatchNorm1d, torch.nn.BatchNorm1d, (4,), (6, 4)),
    (nn.BatchNorm1d, torch.nn.BatchNorm1d, (4, 1e-3, 0.3, False), (6, 4, 5)),
    (nn.BatchNorm2d, torch.nn.BatchNorm2d, (3, 1e-5, None), (2, 3, 4, 5)),
    (nn.BatchNorm2d, torch.nn.BatchNorm2d, (3, 1e-5, 0.1, True, False), (2, 3, 4, 5)),
    (nn.BatchNorm3d, torch.nn.BatchNorm3d, (3,), (2, 3, 2, 2, 3)),
]


@pytest.mark.parametrize(("ours", "theirs", "arguments", "shape"), BATCH_NORMS, ids=range(len(BATCH_NORMS)))
@pytest.mark.parametrize("compiled", [False, True])
def test_batch_norm_in_training_and_evaluation(ours, theirs, arguments, shape, compiled):
    module, peer = ours(*arguments, **F64), theirs(*arguments, dtype=torch.float64)
    if module.weight is not None:
        module = module.replace(weight=normal(1, arguments[0]), bias=normal(2, arguments[0]))
        peer.load_state_dict({n: torch.tensor(v) for n, v in module.state_dict().items()})
    params, buffers = nn.split(module)
    for n in range(3):
        x = normal(n, *shape) * (n + 1) + n
        _, buffers = nn.functional_call(params, buffers, x, training=True)
        peer(torch.tensor(x))
    module = nn.merge(params, buffers)
    theirs_now = {name: value.numpy() for name, value in peer.state_dict().items()}
    assert list(module.state_dict()) == list(theirs_now)
    for name, value in module.state_dict().items():
        assert_close(value, theirs_now[name], 1e-12)

    def train(model, x):
        if isinstance(model, torch.nn.Module):
            return model.train()(x)
        return nn.functional_call(*nn.split(model), x, training=True)[0]

    def evaluate(model, x):
        return model.eval()(x) if isinstance(model, torch.nn.Module) else model(x)

    compare_module(module, peer, normal(7, *shape), call=evaluate, compiled=compiled)
    compare_module(module, peer, normal(7, *shape), call=train, compiled=compiled)


@pytest.mark.parametrize("compiled", [False, True])
@pytest.mark.parametrize(("arguments", "shape"), [((2, 6), (3, 6, 4)), ((3, 3, 1e-3, False), (2, 3, 4, 5))])
def test_group_norm(arguments, shape, compiled):
    peer = torch.nn.GroupNorm(*arguments, dtype=torch.float64)
    compare_module(nn.GroupNorm(*arguments, **F64), peer, normal(0, *shape), compiled=compiled)
    w, b = normal(1, 4), normal(2, 4)
    check(
        lambda x, w, b: F.group_norm(x, 2, w, b), lambda x, w, b: TF.group_norm(x, 2, w, b), normal(0, 3, 4, 2), w, b
    )


# --- recurrence -------------------------------------------------------------------------------------------------------
RECURRENT = [
    ("RNN", (3, 4), {}, (5, 2, 3)),
    ("RNN", (3, 4, 2, "relu", False, True, 0.0, True), {}, (2, 5, 3)),
    ("GRU", (3, 4), {}, (5, 2, 3)),
    ("GRU", (3, 4, 2, True, True, 0.0, True), {}, (2, 6, 3)),
    ("GRU", (3, 4, 1, False), {}, (5, 3)),
    ("LSTM", (3, 4), {}, (5, 2, 3)),
    ("LSTM", (3, 4, 2, False, True), {}, (2, 5, 3)),
    ("LSTM", (3, 4, 2, True, False, 0.0, True, 2), {}, (1, 2, 3)),
    ("LSTM", (3, 4, 1), {"proj_size": 3, "bidirectional": True}, (5, 3)),
]


@pytest.mark.parametrize(("name", "arguments", "more", "shape"), RECURRENT, ids=range(len(RECURRENT)))
@pytest.mark.parametrize("compiled", [False, True])
@pytest.mark.parametrize("given", [False, True])
def test_recurrent_layers(name, arguments, more, shape, compiled, given):
    if compiled and not given:
        pytest.skip("compiled with an initial state")
    module = getattr(nn, name)(*arguments, **more, **F64)
    peer = getattr(torch.nn, name)(*arguments, **more)
    x = normal(0, *shape)
    _, last = module(x)
    states = [normal(3, *part.shape) for part in (last if name == "LSTM" else [last])] if given else []
    call = lambda module, x, *hx: module(x, tuple(hx)) if name == "LSTM" and hx else module(x, *hx)
    compare_module(module, peer, x, *states, call=call, compiled=compiled, tolerance=1e-10)


def test_dropout_between_layers_scales_what_it_keeps():
    x = normal(0, 400, 1, 3)
    module = nn.RNN(3, 64, 2, "relu", dropout=0.5, key=random.key(1), **F64)
    identity = module.replace(weight_ih_l1=np.eye(64), weight_hh_l1=np.zeros((64, 64)), bias_ih_l1=np.zeros(64),
                              bias_hh_l1=np.zeros(64))  # fmt: skip
    first = nn.RNN(3, 64, 1, "relu", **F64).load_state_dict(
        {n: v for n, v in identity.state_dict().items() if n.endswith("l0")}
    )(x)[0]
    np.testing.assert_allclose(identity(x)[0], first)
    dropped, _ = identity(x, key=random.key(2), training=True)
    positive = first > 0
    ratio = dropped[positive] / first[positive]
    assert set(np.round(ratio, 9)) == {0.0, 2.0} and abs(ratio.mean() - 1) < 0.05


# --- attention --------------------------------------------------------------------------------------------------------
def future(n, m):
    return np.triu(np.ones((n, m), bool), 1)


PADDING = np.array([[0, 0, 0, 1, 0], [0, 0, 0, 0, 0]], bool)
ATTENTION = [
    ((8, 2), {}, (4, 5), {}),
    ((8, 2, 0.0, False), {"batch_first": True}, (4, 5), {"need_weights": False}),
    ((8, 4), {"add_bias_kv": True, "add_zero_attn": True}, (4, 5), {"average_attn_weights": False,
     "key_padding_mask": PADDING}),
    ((8, 2), {"kdim": 3, "vdim": 6}, (4, 5), {"attn_mask": future(4, 5), "key_padding_mask": PADDING}),
    ((8, 2), {"batch_first": True}, (4, 5), {"attn_mask": normal(5, 4, 4, 5)}),
    ((8, 2), {}, (5, 5), {"attn_mask": np.where(future(5, 5), -np.inf, 0.0)}),
]  # fmt: skip


@pytest.mark.parametrize(("arguments", "more", "lengths", "given"), ATTENTION, ids=range(len(ATTENTION)))
@pytest.mark.parametrize("compiled", [False, True])
def test_multihead_attention(arguments, more, lengths, given, compiled):
    module = nn.MultiheadAttention(*arguments, **more, **F64)
    peer = torch.nn.MultiheadAttention(*arguments, **more)
    widths = (arguments[0], more.get("kdim", arguments[0]), more.get("vdim", arguments[0]))
    order = (lambda t: (2, t)) if more.get("batch_first") else (lambda t: (t, 2))
    inputs = [normal(i, *order(lengths[min(i, 1)]), w) for i, w in enumerate(widths)]

    def call(model, *xs):
        theirs = isinstance(model, torch.nn.Module)
        now = {k: torch.tensor(v) if theirs and isinstance(v, np.ndarray) else v for k, v in given.items()}
        return tuple(part for part in model(*xs, **now) if part is not None)

    compare_module(module, peer, *inputs, call=call, compiled=compiled, tolerance=1e-10)


@pytest.mark.parametrize("compiled", [False, True])
def test_self_attention(compiled):
    module = nn.MultiheadAttention(8, 2, add_zero_attn=True, **F64)
    peer = torch.nn.MultiheadAttention(8, 2, add_zero_attn=True)
    compare_module(module, peer, normal(0, 4, 3, 8), call=lambda m, x: m(x, x, x), compiled=compiled)


def test_attention_without_a_batch():
    module, peer = nn.MultiheadAttention(6, 3, **F64), torch.nn.MultiheadAttention(6, 3)
    compare_module(module, peer, normal(0, 4, 6), normal(1, 5, 6), normal(2, 5, 6))


@pytest.mark.parametrize("compiled", [False, True])
def test_scaled_dot_product_attention(compiled):
    q, k, v = normal(0, 2, 3, 4, 5), normal(1, 2, 3, 6, 5), normal(2, 2, 3, 6, 7)
    mask, added = ~future(4, 6), normal(3, 2, 1, 4, 6)
    nothing = mask.copy()
    nothing[1] = False
    for ours, theirs in [
        ({}, {}),
        ({"is_causal": True, "scale": 0.3}, {"is_causal": True, "scale": 0.3}),
        ({"attn_mask": nothing}, {"attn_mask": torch.tensor(nothing)}),
        ({"attn_mask": added}, {"attn_mask": torch.tensor(added)}),
    ][:: 2 if compiled else 1]:
        check(
            lambda *qkv, ours=ours: F.scaled_dot_product_attention(*qkv, **ours),
            lambda *qkv, theirs=theirs: TF.scaled_dot_product_attention(*qkv, **theirs),
            q, k, v, compiled=compiled,
        )  # fmt: skip


# --- activations, losses, pools ---------------------------------------------------------------------------------------
EDGES = np.array([-np.inf, -1e4, -6.0, -3.0, -1.0, -0.5, 0.0, 0.5, 1.0, 3.0, 6.0, 1e4, np.inf, np.nan])
ACTIVATIONS = [
    ("ReLU", ()), ("LeakyReLU", (0.2,)), ("ELU", (0.7,)), ("CELU", (0.7,)), ("SELU", ()), ("GELU", ("tanh",)),
    ("SiLU", ()), ("Tanh", ()), ("Sigmoid", ()), ("LogSigmoid", ()), ("Softsign", ()), ("Mish", ()), ("ReLU6", ()),
    ("Hardtanh", (-0.5, 2.0)), ("Hardsigmoid", ()), ("Hardswish", ()), ("GLU", (0,)), ("PReLU", (3,)), ("PReLU", ()),
]  # fmt: skip


@pytest.mark.parametrize(("name", "arguments"), ACTIVATIONS, ids=[f"{n}{i}" for i, (n, _) in enumerate(ACTIVATIONS)])
def test_activations(name, arguments):
    more = F64 if name == "PReLU" else {}
    ours, theirs = getattr(nn, name)(*arguments, **more), getattr(torch.nn, name)(*arguments)
    tolerance = 1e-7 if name in ("CELU", "SELU", "Hardsigmoid", "Hardswish") else 1e-9  # PyTorch's float32 constants
    compare_module(ours, theirs, normal(0, 4, 3, 5) * 3, tolerance=tolerance)
    if name in ("GLU", "PReLU"):
        return
    with np.errstate(all="ignore"):
        found = ours(EDGES)
    expected = theirs(torch.tensor(EDGES)).numpy()
    first = 1 if name == "Hardswish" else 0  # NaN at -inf in PyTorch, the limit 0 here
    np.testing.assert_allclose(found[first:-1], expected[first:-1], rtol=tolerance, atol=1e-15)
    assert np.isnan(found[-1])
    finite = np.array([-6.0, -3.0, -1.0, -0.5, 0.0, 1.0, 2.0, 3.0, 6.0])
    compare_module(ours, theirs, finite, tolerance=tolerance)


def test_activations_compiled():
    names = ["ELU", "CELU", "SELU", "Softsign", "Mish", "ReLU6", "Hardsigmoid", "Hardswish", "LogSigmoid"]
    check(lambda x: [getattr(nn, n)()(x) for n in names], lambda x: [getattr(torch.nn, n)()(x) for n in names],
          normal(0, 4, 33) * 4, compiled=True, tolerance=1e-7)  # fmt: skip


X, P = normal(0, 6, 4), np.random.default_rng(1).uniform(0.05, 0.95, (6, 4))
CLASSES, WEIGHT = np.array([0, 3, -100, 1, 2, 2]), np.array([0.5, 2.0, 1.0, 3.0])
LOSSES = [
    ("CrossEntropyLoss", {"weight": WEIGHT, "label_smoothing": 0.1}, (X,), CLASSES),
    ("NLLLoss", {"weight": WEIGHT, "ignore_index": 3}, (X,), np.array([0, 3, 3, 1, 2, 2])),
    ("MSELoss", {}, (X, P), None),
    ("L1Loss", {}, (X, P), None),
    ("HuberLoss", {"delta": 0.4}, (X, P), None),
    ("SmoothL1Loss", {"beta": 0.4}, (X, P), None),
    ("BCELoss", {"weight": WEIGHT}, (P, P[::-1].copy()), None),
    ("BCEWithLogitsLoss", {"weight": WEIGHT, "pos_weight": WEIGHT}, (X, P), None),
    ("KLDivLoss", {"log_target": True}, (X, P), None),
    ("KLDivLoss", {}, (X, P), None),
]


@pytest.mark.parametrize("reduction", ["mean", "sum", "none", "batchmean"])
@pytest.mark.parametrize(("name", "more", "inputs", "target"), LOSSES, ids=[f"{r[0]}{i}" for i, r in enumerate(LOSSES)])
def test_losses(name, more, inputs, target, reduction):
    if reduction == "batchmean" and name != "KLDivLoss":
        pytest.skip("a reduction of KLDivLoss alone")
    ours = getattr(nn, name)(**more, reduction=reduction)
    given = {k: torch.tensor(v) if isinstance(v, np.ndarray) else v for k, v in more.items()}
    theirs = getattr(torch.nn, name)(**given, reduction=reduction)
    assert set(ours.state_dict()) == set(theirs.state_dict()) and not ours.named_parameters()
    last = () if target is None else (target,)
    check(lambda *xs: ours(*xs, *last), lambda *xs: theirs(*xs, *map(torch.tensor, last)), *inputs,
          compiled=reduction == "mean", tolerance=1e-10)  # fmt: skip


def test_binary_cross_entropy_at_its_edges():
    x = np.array([0.0, 1.0, 0.0, 1.0, 1e-14, 1 - 1e-14, 0.5])
    t = np.array([1.0, 0.0, 0.0, 1.0, 1.0, 0.0, 0.5])
    check(lambda x: F.binary_cross_entropy(x, t, reduction="none"),
          lambda x: TF.binary_cross_entropy(x, torch.tensor(t), reduction="none"), x, tolerance=1e-8)  # fmt: skip
    assert np.isnan(F.binary_cross_entropy(np.array([-0.1, 1.1]), np.array([0.3, 0.3]), reduction="none")).all()


@pytest.mark.parametrize("compiled", [False, True])
def test_adaptive_pools(compiled):
    cases = [("1d", 3, (2, 3, 7)), ("1d", 5, (3, 3)), ("2d", (2, None), (2, 3, 5, 4)), ("2d", 1, (3, 5, 4)),
             ("2d", (3, 2), (1, 2, 6, 4))]  # fmt: skip
    for kind, size, shape in cases[:: 2 if compiled else 1]:
        compare_module(getattr(nn, f"AdaptiveAvgPool{kind}")(size), getattr(torch.nn, f"AdaptiveAvgPool{kind}")(size),
                       normal(0, *shape), compiled=compiled)  # fmt: skip
    arguments = (3, 2, 1, False, True, 5)
    compare_module(nn.AvgPool2d(*arguments), torch.nn.AvgPool2d(*arguments), normal(0, 2, 3, 7, 8), compiled=compiled)


# --- initial values ---------------------------------------------------------------------------------------------------
def test_initial_values_have_torchs_distributions():
    shape, key = (60, 40, 3), random.key(0)
    theirs = torch.empty(shape)
    for ours, fill in [
        (nn.init.trunc_normal(key, shape, 0.5, 2.0, -1.0, 3.0),
         lambda t: torch.nn.init.trunc_normal_(t, 0.5, 2.0, -1, 3)),
        (nn.init.orthogonal(key, shape, 2.0), lambda t: torch.nn.init.orthogonal_(t, 2.0)),
        (nn.init.xavier_normal(key, shape, 2.0), lambda t: torch.nn.init.xavier_normal_(t, 2.0)),
        (nn.init.kaiming_uniform(key, shape, 0.3, "fan_out"),
         lambda t: torch.nn.init.kaiming_uniform_(t, 0.3, "fan_out")),
        (nn.init.constant(shape, 0.3), lambda t: torch.nn.init.constant_(t, 0.3)),
    ]:  # fmt: skip
        expected = fill(theirs).numpy()
        assert ours.dtype == expected.dtype and ours.shape == expected.shape
        assert abs(ours.mean() - expected.mean()) < 0.05 and abs(ours.std() - expected.std()) < 0.03
        assert abs(np.abs(ours).max() / np.abs(expected).max() - 1) < 0.35


# --- signatures -------------------------------------------------------------------------------------------------------
OTHER_DEFAULTS = {"Softmax", "LogSoftmax", "softmax", "log_softmax", "pad", "batch_norm"}
"""`dim` is -1 here and guessed from the rank there; `value` is 0.0 and None; running statistics may be left out."""


def positional(function, leave_out):
    kinds = (inspect.Parameter.POSITIONAL_ONLY, inspect.Parameter.POSITIONAL_OR_KEYWORD)
    found = [p for p in inspect.signature(function).parameters.values() if p.kind in kinds and p.name != "self"]
    return [(p.name, p.default) for p in found if p.name not in leave_out]


@pytest.mark.parametrize(("ours", "theirs"), [(nn, torch.nn), (F, TF)], ids=["nn", "functional"])
def test_positional_arguments_and_defaults_are_torchs(ours, theirs):
    compared = 0
    for name in ours.__all__:
        mine, peer = getattr(ours, name), getattr(theirs, name, None)
        if peer is None or inspect.ismodule(mine) or name in ("Sequential", "RNN", "GRU", "LSTM"):
            continue
        try:
            expected = positional(peer.__init__ if inspect.isclass(peer) else peer, ("size_average", "reduce"))
        except ValueError:  # written in C++
            continue
        found = positional(mine.__init__ if inspect.isclass(mine) else mine, ())
        if not expected:  # dispatched by overload
            continue
        if name in OTHER_DEFAULTS:
            found, expected = [n for n, _ in found], [n for n, _ in expected]
        assert found == expected[: len(found)], name
        compared += 1
    assert compared > 25
