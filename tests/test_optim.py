"""Optimizers and schedules: closed forms in NumPy, PyTorch where it is installed, and no second trace."""

from __future__ import annotations

import numpy as np
import pytest

import tracegrad as tg
from tracegrad import nn, optim, random, tree
from tracegrad.errors import ArgumentError

try:
    import torch
except ImportError:
    torch = None

needs_torch = pytest.mark.skipif(torch is None, reason="PyTorch is not installed")


def quadratic(seed=0, dtype=np.float64):
    """Return params, and a function that gives a fresh gradient for every step."""
    rng = np.random.default_rng(seed)
    params = {"w": rng.normal(size=(3, 4)).astype(dtype), "b": rng.normal(size=4).astype(dtype)}
    slopes = [tree.map(lambda p: rng.normal(size=p.shape).astype(dtype), params) for _ in range(100)]
    return params, lambda p, n: tree.map(lambda p, s: 0.3 * p + s, p, slopes[n])


def run(optimizer, params, gradient, steps=100):
    state = optimizer.init(params)
    for n in range(steps):
        params, state = optimizer.step(gradient(params, n), state, params)
    return params


# --- closed forms -----------------------------------------------------------------------------------------------------
def test_sgd_with_l2_is_the_formula():
    eta, alpha, w, g = 0.1, 0.25, np.array([2.0, -1.0]), np.array([0.5, 3.0])
    optimizer = optim.chain(optim.l2_decay(alpha), optim.sgd(eta))
    found, _ = optimizer.step(g, optimizer.init(w), w)
    np.testing.assert_allclose(found, (1 - 2 * eta * alpha) * w - eta * g)
    optimizer = optim.chain(optim.l1_decay(alpha), optim.sgd(eta))
    found, _ = optimizer.step(g, optimizer.init(w), w)
    np.testing.assert_allclose(found, w - eta * (g + alpha * np.sign(w)))


def test_momentum_of_a_constant_gradient():
    optimizer = optim.sgd(1.0, momentum=0.5)
    found = run(optimizer, np.zeros(1), lambda p, n: np.ones(1), steps=4)
    np.testing.assert_allclose(found, -(1 + 1.5 + 1.75 + 1.875))
    found = run(optim.sgd(1.0, momentum=0.5, nesterov=True), np.zeros(1), lambda p, n: np.ones(1), steps=2)
    np.testing.assert_allclose(found, -(1.5 + 1.75))


def test_adam_is_the_formula():
    params, gradient = quadratic()
    found = run(optim.adam(0.01), params, gradient, 30)
    p = {k: v.copy() for k, v in params.items()}
    m = dict.fromkeys(p, 0.0)
    v = dict.fromkeys(p, 0.0)
    for t in range(1, 31):
        g = gradient(p, t - 1)
        for k in p:
            m[k] = 0.9 * m[k] + 0.1 * g[k]
            v[k] = 0.999 * v[k] + 0.001 * g[k] ** 2
            p[k] = p[k] - 0.01 * (m[k] / (1 - 0.9**t)) / (np.sqrt(v[k] / (1 - 0.999**t)) + 1e-8)
    for k in p:
        np.testing.assert_allclose(found[k], p[k], rtol=1e-12)


def test_clipping_by_global_norm():
    grads = {"a": np.array([3.0, 0.0]), "b": np.array([[4.0]])}
    clip = optim.clip_by_global_norm(1.0, eps=0.0)
    clipped, _ = clip.update(grads, clip.init(grads), grads)
    np.testing.assert_allclose(optim.global_norm(clipped), 1.0)
    np.testing.assert_allclose(clipped["a"], [0.6, 0])
    kept, _ = optim.clip_by_global_norm(10.0).update(grads, (), grads)
    np.testing.assert_array_equal(kept["b"], grads["b"])
    np.testing.assert_array_equal(optim.clip_by_value(2.0).update(grads, (), grads)[0]["a"], [2, 0])


def test_seed_case_line_fit():
    """y = 2x from w = 0 at rate 0.01: weight and loss at rounds 1, 11, 21, 31, 41."""
    x = np.array([1.0, 2.0, 3.0, 4.0])
    loss = tg.value_and_grad(lambda w, x, y: np.mean((w * x - y) ** 2))
    optimizer = optim.sgd(0.01)
    w, state, seen = 0.0, optimizer.init(np.float64(0)), {}
    for n in range(1, 51):
        value, g = loss(w, x, 2 * x)
        w, state = optimizer.step(g, state, w)
        seen[n] = w, value
    expected = {
        1: (0.3, 30),
        11: (1.665, 1.16278565),
        21: (1.934, 0.0450689),
        31: (1.987, 0.00174685),
        41: (1.997, 6.77e-5),
    }
    for n, (w_now, value) in expected.items():
        assert seen[n][0] == pytest.approx(w_now, abs=6e-4) and seen[n][1] == pytest.approx(value, abs=5e-7)


# --- PyTorch ----------------------------------------------------------------------------------------------------------
PAIRS = [
    (lambda: optim.sgd(0.1), lambda p: torch.optim.SGD(p, 0.1)),
    (lambda: optim.sgd(0.05, 0.9), lambda p: torch.optim.SGD(p, 0.05, 0.9)),
    (lambda: optim.sgd(0.05, 0.9, True, 0.1), lambda p: torch.optim.SGD(p, 0.05, 0.9, nesterov=True, weight_decay=0.1)),
    (
        lambda: optim.sgd(0.05, 0.9, weight_decay=0.1, dampening=0.3),
        lambda p: torch.optim.SGD(p, 0.05, 0.9, weight_decay=0.1, dampening=0.3),
    ),
    (lambda: optim.adam(0.02), lambda p: torch.optim.Adam(p, 0.02)),
    (lambda: optim.adam(0.2, amsgrad=True), lambda p: torch.optim.Adam(p, 0.2, amsgrad=True)),
    (lambda: optim.adamw(0.2, amsgrad=True), lambda p: torch.optim.AdamW(p, 0.2, amsgrad=True)),
    (lambda: optim.adam(0.02, (0.8, 0.99), 1e-6, 0.1), lambda p: torch.optim.Adam(p, 0.02, (0.8, 0.99), 1e-6, 0.1)),
    (lambda: optim.adamw(0.02), lambda p: torch.optim.AdamW(p, 0.02)),
    (lambda: optim.adamw(0.02, weight_decay=0.3), lambda p: torch.optim.AdamW(p, 0.02, weight_decay=0.3)),
    (lambda: optim.rmsprop(0.01), lambda p: torch.optim.RMSprop(p, 0.01)),
    (
        lambda: optim.rmsprop(0.01, 0.9, 1e-6, 0.1, 0.9, True),
        lambda p: torch.optim.RMSprop(p, 0.01, 0.9, 1e-6, 0.1, 0.9, True),
    ),
    (lambda: optim.adagrad(0.1), lambda p: torch.optim.Adagrad(p, 0.1)),
    (lambda: optim.adagrad(0.1, 0.01, 0.1, 0.5), lambda p: torch.optim.Adagrad(p, 0.1, 0.01, 0.1, 0.5)),
]


@needs_torch
@pytest.mark.parametrize("dtype", [np.float64, np.float32])
@pytest.mark.parametrize("index", range(len(PAIRS)))
def test_update_rules_equal_pytorch(index, dtype):
    ours, theirs = PAIRS[index]
    params, gradient = quadratic(index, dtype)
    tensors = {k: torch.tensor(v) for k, v in params.items()}
    optimizer = theirs(list(tensors.values()))
    for n in range(100):
        g = gradient({k: v.numpy() for k, v in tensors.items()}, n)
        for k, tensor in tensors.items():
            tensor.grad = torch.tensor(g[k])
        optimizer.step()
    found = run(ours(), params, gradient)
    for k, tensor in tensors.items():
        assert found[k].dtype == dtype
        tolerance = 1e-10 if dtype == np.float64 else 2e-5
        np.testing.assert_allclose(found[k], tensor.numpy(), rtol=tolerance, atol=tolerance)


@needs_torch
def test_clipping_equals_pytorch():
    grads = {k: v * 7 for k, v in quadratic()[0].items()}
    tensors = [torch.nn.Parameter(torch.zeros(g.shape, dtype=torch.float64)) for g in grads.values()]
    for tensor, g in zip(tensors, grads.values(), strict=True):
        tensor.grad = torch.tensor(g)
    torch.nn.utils.clip_grad_norm_(tensors, 1.5)
    clipped, _ = optim.clip_by_global_norm(1.5).update(grads, (), grads)
    for tensor, g in zip(tensors, clipped.values(), strict=True):
        np.testing.assert_allclose(g, tensor.grad.numpy())


@needs_torch
def test_schedules_equal_pytorch():
    schedulers = torch.optim.lr_scheduler
    pairs = [
        (optim.step_decay(0.4, 7, 0.3), lambda o: schedulers.StepLR(o, 7, 0.3)),
        (optim.multistep(0.4, [3, 11, 30], 0.3), lambda o: schedulers.MultiStepLR(o, [3, 11, 30], 0.3)),
        (optim.linear(0.4, 13, 0.2, 0.9), lambda o: schedulers.LinearLR(o, 0.2, 0.9, 13)),
        (optim.polynomial(0.4, 30, 1.7), lambda o: schedulers.PolynomialLR(o, 30, 1.7)),
        (optim.cosine_restarts(0.4, 7, 1, 0.01), lambda o: schedulers.CosineAnnealingWarmRestarts(o, 7, 1, 0.01)),
        (optim.cosine_restarts(0.4, 3, 2), lambda o: schedulers.CosineAnnealingWarmRestarts(o, 3, 2)),
        (optim.exponential(0.4, 0.93), lambda o: schedulers.ExponentialLR(o, 0.93)),
        (optim.cosine(0.4, 40, 0.01), lambda o: schedulers.CosineAnnealingLR(o, 40, 0.01)),
        (optim.one_cycle(0.4, 40), lambda o: schedulers.OneCycleLR(o, 0.4, 40)),
        (optim.warmup(0.4, 10, 0.25), lambda o: schedulers.LinearLR(o, 0.25, 1.0, 10)),
    ]
    for ours, theirs in pairs:
        optimizer = torch.optim.SGD([torch.nn.Parameter(torch.zeros(1))], 0.4)
        scheduler = theirs(optimizer)
        for n in range(40):
            assert float(ours(n)) == pytest.approx(optimizer.param_groups[0]["lr"], rel=1e-9, abs=1e-12), n
            optimizer.step()
            scheduler.step()


# --- schedules and compiled steps -------------------------------------------------------------------------------------
SCHEDULES = {
    "constant": optim.constant(0.1),
    "step": optim.step_decay(0.1, 3, 0.5),
    "multistep": optim.multistep(0.1, [2, 9], 0.5),
    "linear": optim.linear(0.1, 7),
    "polynomial": optim.polynomial(0.1, 12, 2.0),
    "restarts": optim.cosine_restarts(0.1, 2, 3),
    "exponential": optim.exponential(0.1, 0.9, 2),
    "cosine": optim.cosine(0.1, 10),
    "warmup": optim.warmup(optim.cosine(0.1, 10), 4),
    "one_cycle": optim.one_cycle(0.1, 12),
}


def test_schedules_are_the_same_for_numbers_and_traced_counts():
    compiled = tg.jit(lambda n: {name: schedule(n) for name, schedule in SCHEDULES.items()})
    for n in range(0, 20, 3):
        found = compiled(np.int64(n))
        for name, schedule in SCHEDULES.items():
            assert float(found[name]) == pytest.approx(float(schedule(n)), rel=1e-12), name
    assert compiled.traces == 1
    warm = SCHEDULES["warmup"]
    assert [float(warm(n)) for n in (0, 2, 4, 9, 14, 99)] == pytest.approx([0, 0.05, 0.1, 0.05, 0, 0], abs=1e-12)


MAKERS = {
    "adam": lambda rate: optim.adam(rate, weight_decay=0.1, amsgrad=True),
    "adagrad": optim.adagrad,
    "sgd": lambda rate: optim.sgd(rate, 0.9, weight_decay=0.1, dampening=0.2),
    "rmsprop": lambda rate: optim.rmsprop(rate, momentum=0.9, centered=True),
    "lamb": lambda rate: optim.lamb(rate, weight_decay=0.1),
    "groups": lambda rate: optim.chain(
        optim.masked(optim.l1_decay(0.1), lambda name, p: name == "w"),
        optim.clip_by_global_norm(1.0),
        optim.groups({"w": optim.adamw(rate), "b": optim.frozen()}, lambda name, p: name),
    ),
}


@pytest.mark.parametrize("make", MAKERS.values(), ids=MAKERS)
def test_compiled_step_equals_eager_and_never_retraces(make):
    optimizer = make(SCHEDULES["warmup"])
    params, gradient = quadratic(dtype=np.float32)

    def step(params, state, slope):
        grads = tg.grad(lambda p: sum((p[k] * slope[k]).sum() + 0.5 * (p[k] ** 2).sum() for k in p))(params)
        return optimizer.step(grads, state, params)

    compiled = tg.jit(step)
    p, state = params, optimizer.init(params)
    q, other = params, optimizer.init(params)
    for n in range(5):
        slope = gradient(params, n)
        p, state = compiled(p, state, slope)
        with tg.eager():
            q, other = step(q, other, slope)
    assert compiled.traces == 1
    assert all(int(n) == 5 for n in tree.leaves(state) if n.dtype == np.int64)
    for k in p:
        assert p[k].dtype == np.float32
        np.testing.assert_allclose(p[k], q[k], rtol=2e-5, atol=1e-6)


def test_traced_learning_rate_never_retraces():
    @tg.jit
    def step(p, state, rate):
        return optim.adam(rate).step(p, state, p)

    p = np.ones(3, np.float32)
    state = optim.adam().init(p)
    for rate in (0.1, 0.01, 0.5):
        p, state = step(p, state, rate)
    assert step.traces == 1 and p.dtype == np.float32
    np.testing.assert_allclose(p, 1 - 0.61, rtol=0.05)


def test_models_are_parameters():
    model = nn.Linear(3, 2, key=random.key(0))
    optimizer = optim.chain(optim.clip_by_global_norm(1.0), optim.adamw(1e-2))
    state = optimizer.init(model)
    after, state = optimizer.step(model, state, model)
    assert isinstance(after, nn.Linear) and isinstance(state[1].mean, nn.Linear)
    assert (after.weight != model.weight).all()


def test_errors():
    with pytest.raises(ArgumentError, match="nesterov needs momentum"):
        optim.sgd(0.1, nesterov=True)
    with pytest.raises(ArgumentError, match="and no dampening"):
        optim.sgd(0.1, 0.9, nesterov=True, dampening=0.1)
    with pytest.raises(ArgumentError, match=r"betas=\(0.9, 1.0\) are not in"):
        optim.adam(0.1, (0.9, 1.0))
    with pytest.raises(ArgumentError, match="a function is not an optimizer"):
        optim.chain(optim.adam)
    with pytest.raises(ArgumentError, match="steps is 0"):
        optim.cosine(0.1, 0)
