"""Groups of parameters, masks, LAMB, plateaus, and what is refused."""

from __future__ import annotations

import numpy as np
import pytest

import tracegrad as tg
from tracegrad import nn, optim, random, tree
from tracegrad.errors import ArgumentError, DTypeError

KEY = random.key(0)


def model():
    return nn.Sequential(nn.Linear(3, 4, key=KEY), nn.LayerNorm(4), nn.Linear(4, 2, key=KEY))


def slopes(params, seed=0):
    rng = np.random.default_rng(seed)
    return tree.map(lambda p: rng.normal(size=p.shape).astype(p.dtype), params)


def test_every_group_follows_its_own_rule():
    params, grads = model(), slopes(model())
    label = lambda name, p: "norm" if name.startswith("1.") else "matrix" if p.ndim > 1 else "bias"
    optimizer = optim.groups({"matrix": optim.adamw(0.1), "bias": optim.sgd(0.2), "norm": optim.frozen()}, label)
    after, state = optimizer.step(grads, optimizer.init(params), params)
    assert isinstance(after, nn.Sequential) and sorted(state) == ["bias", "matrix", "norm"]
    alone = {"matrix": optim.adamw(0.1), "bias": optim.sgd(0.2)}
    before, slope = params.named_parameters(), grads.named_parameters()
    for name, found in after.named_parameters().items():
        kind = label(name, before[name])
        if kind == "norm":
            np.testing.assert_array_equal(found, before[name])
        else:
            rule = alone[kind]
            expected, _ = rule.step(slope[name], rule.init(before[name]), before[name])
            np.testing.assert_allclose(found, expected, rtol=1e-6)


def test_labels_may_be_a_tree():
    params, grads = {"a": np.ones(2), "b": [np.ones(3)]}, {"a": np.ones(2), "b": [np.ones(3)]}
    optimizer = optim.groups({1: optim.sgd(0.5), 2: optim.sgd(0.25)}, {"a": 1, "b": [2]})
    after, _ = optimizer.step(grads, optimizer.init(params), params)
    assert after["a"].tolist() == [0.5] * 2 and after["b"][0].tolist() == [0.75] * 3


def test_a_mask_lets_gradients_through_a_transformation_and_keeps_parameters_from_an_optimizer():
    params, grads = {"w": np.full((2, 2), 2.0), "b": np.full(2, 3.0)}, {"w": np.ones((2, 2)), "b": np.ones(2)}
    matrices = lambda name, p: p.ndim > 1
    decayed = optim.chain(optim.masked(optim.weight_decay(0.5), matrices), optim.sgd(1.0))
    after, _ = decayed.step(grads, decayed.init(params), params)
    assert after["w"].tolist() == [[0.0, 0.0]] * 2 and after["b"].tolist() == [2.0, 2.0]
    for mask in (matrices, {"w": True, "b": False}):
        some = optim.masked(optim.chain(optim.scale(0.5), optim.sgd(1.0)), mask)
        after, _ = some.step(grads, some.init(params), params)
        assert after["w"].tolist() == [[1.5, 1.5]] * 2 and after["b"].tolist() == [3.0, 3.0]


def test_lamb_is_the_formula():
    rng = np.random.default_rng(0)
    p = {"w": rng.normal(size=(3, 4)), "zero": np.zeros(3)}
    optimizer = optim.lamb(0.05, weight_decay=0.1)
    state, mine = optimizer.init(p), dict(p)
    m, v = dict.fromkeys(p, 0.0), dict.fromkeys(p, 0.0)
    for t in range(1, 21):
        g = {k: rng.normal(size=x.shape) * (t > 1 or k != "zero") for k, x in p.items()}
        mine, state = optimizer.step(g, state, mine)
        for k in p:
            m[k], v[k] = 0.9 * m[k] + 0.1 * g[k], 0.999 * v[k] + 0.001 * g[k] ** 2
            r = m[k] / (1 - 0.9**t) / (np.sqrt(v[k] / (1 - 0.999**t)) + 1e-6) + 0.1 * p[k]
            sizes = np.linalg.norm(p[k]), np.linalg.norm(r)
            p[k] = p[k] - 0.05 * (sizes[0] / sizes[1] if min(sizes) > 0 else 1.0) * r
    for k in p:
        np.testing.assert_allclose(mine[k], p[k], rtol=1e-12)


VALUES = [5, 4, 4, 4.1, 3.9997, 4, 4, 4, 3, 3, 3, 3, 3, 2.9, 2.9, np.nan, 3, 3, 3, 3, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1]
PLATEAUS = [
    ("min", 0.5, 2),
    ("max", 0.1, 0, 0.1, "abs", 3),
    ("min", 0.3, 1, 1e-3, "rel", 2, 0.01),
    ("min", 0.1, 1, 0.5, "abs", 0, 0.0, 1e-2),
]


@pytest.mark.parametrize("arguments", PLATEAUS, ids=range(len(PLATEAUS)))
def test_plateau_equals_pytorch(arguments):
    torch = pytest.importorskip("torch")
    peer = torch.optim.SGD([torch.nn.Parameter(torch.zeros(1))], 0.4)
    names = ["mode", "factor", "patience", "threshold", "threshold_mode", "cooldown", "min_lr", "eps"]
    theirs = torch.optim.lr_scheduler.ReduceLROnPlateau(peer, **dict(zip(names, arguments, strict=False)))
    ours = optim.plateau(0.4, *arguments)
    state = ours.init()
    for value in VALUES:
        theirs.step(value)
        state = ours.update(state, value)
        assert float(state.rate) == pytest.approx(peer.param_groups[0]["lr"], rel=1e-12)
        assert int(state.bad) == theirs.num_bad_epochs and int(state.waiting) == theirs.cooldown_counter


def test_plateau_in_a_compiled_step_never_retraces():
    schedule = optim.plateau(0.5, factor=0.5, patience=1, cooldown=1)

    @tg.jit
    def step(p, state, slow, value):
        return *optim.sgd(slow.rate).step(p, state, p), schedule.update(slow, value)

    p, slow, eager = np.ones(2), schedule.init(), schedule.init()
    state = optim.sgd(0.1).init(p)
    rates = []
    for value in (3.0, 2.0, 2.0, 2.0, 2.0, 2.0, 2.0, 1.0):
        p, state, slow = step(p, state, slow, value)
        eager = schedule.update(eager, np.float32(value))
        rates.append(float(slow.rate))
        assert [float(x) for x in slow] == [float(x) for x in eager]
    assert rates == [0.5, 0.5, 0.5, 0.25, 0.25, 0.25, 0.125, 0.125] and step.traces == 1
    np.testing.assert_allclose(p, 0.5**4 * 0.75**3 * 0.875)


PARAMS = {"w": np.ones((2, 2)), "b": np.ones(2)}
ERRORS = [
    (lambda: optim.adam().init({"n": np.arange(3)}), DTypeError, r"the parameter \['n'\] is int64, not floating"),
    (lambda: optim.sgd(0.1).init(nn.BatchNorm1d(2)), DTypeError, r"num_batches_tracked.* is int64"),
    (lambda: optim.sgd(0.1).update({"w": PARAMS["w"]}, optim.sgd(0.1).init(PARAMS), PARAMS), ArgumentError,
     "the gradients have the structure"),
    (lambda: optim.adam().update(PARAMS, optim.adam().init({"w": PARAMS["w"]}), PARAMS), ArgumentError,
     "the state belongs to other params"),
    (lambda: optim.groups({"a": optim.adam}, lambda name, p: "a"), ArgumentError, "a function stands at 'a'"),
    (lambda: optim.groups({"a": optim.adam()}, lambda name, p: name).init(PARAMS), ArgumentError,
     r"the label '[wb]' of [wb] has no optimizer\n  fix: use one of \['a'\]"),
    (lambda: optim.groups({"a": optim.adam()}, {"w": "a"}).init(PARAMS), ArgumentError,
     "the labels have the structure"),
    (lambda: optim.plateau(0.1, "low"), ArgumentError, "mode='low'"),
    (lambda: optim.plateau(0.1, factor=1.0), ArgumentError, "factor is 1.0, and the rate would not fall"),
    (lambda: optim.cosine_restarts(0.1, 3, 0), ArgumentError, "factor is 0"),
    (lambda: optim.polynomial(0.1, 0), ArgumentError, "steps is 0"),
]  # fmt: skip


@pytest.mark.parametrize(("call", "kind", "text"), ERRORS, ids=range(len(ERRORS)))
def test_errors(call, kind, text):
    with pytest.raises(kind, match=text) as caught:
        call()
    assert "\n  fix: " in str(caught.value)
