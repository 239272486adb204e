"""Running statistics, buffers, and state dicts: pure calls, one trace, nothing lost in silence."""

from __future__ import annotations

import numpy as np
import pytest

import tracegrad as tg
from tracegrad import nn, optim, random, tree
from tracegrad.errors import ArgumentError, GradientError, ShapeError
from tracegrad.nn import functional as F
from tracegrad.nn.loading import StateDictError

KEY = random.key(0)


def normal(seed, *shape, dtype=np.float64):
    return np.random.default_rng(seed).normal(size=shape).astype(dtype)


def network(dtype=np.float64):
    return nn.Sequential(
        nn.Linear(3, 6, key=KEY, dtype=dtype), nn.BatchNorm1d(6, dtype=dtype), nn.ReLU(),
        nn.Linear(6, 4, key=KEY, dtype=dtype),
    )  # fmt: skip


def training_step(optimizer):
    def loss(params, buffers, x, y):
        scores, buffers = nn.functional_call(params, buffers, x, training=True)
        return F.cross_entropy(scores, y), buffers

    def step(params, buffers, state, x, y):
        (value, buffers), grads = tg.value_and_grad(loss, has_aux=True)(params, buffers, x, y)
        return *optimizer.step(grads, state, params), buffers, value

    return step


@pytest.mark.parametrize("mode", ["jit", "compile"])
def test_a_step_with_batch_norm_is_traced_once_and_equals_eager(mode):
    optimizer = optim.sgd(0.1, 0.9)
    step = training_step(optimizer)
    params, buffers = nn.split(network())
    start = params, optimizer.init(params), buffers
    y = np.arange(8) % 4
    run = tg.jit(step) if mode == "jit" else tg.compile(step, params, buffers, start[1], normal(0, 8, 3), y)
    p, s, b = start
    q, t, c = start
    for n in range(4):
        x = normal(n, 8, 3) + 1
        p, s, b, value = run(p, b, s, x, y)
        with tg.eager():
            q, t, c, expected = step(q, c, t, x, y)
        np.testing.assert_allclose(value, expected, rtol=1e-12)
    if mode == "jit":
        assert run.traces == 1
    assert b["1.num_batches_tracked"] == 4 and b["1.num_batches_tracked"].dtype == np.int64
    for name in b:
        np.testing.assert_allclose(b[name], c[name], rtol=1e-12)
    model = nn.merge(p, b)
    np.testing.assert_allclose(tg.jit(model)(x), model(x), rtol=1e-12)


def test_running_statistics_follow_their_formulas():
    x = normal(0, 5, 2, 3) * 2 + 1
    mean, variance = x.mean((0, 2)), x.var((0, 2), ddof=1)
    _, after = nn.functional_call(*nn.split(nn.BatchNorm1d(2, momentum=0.25, dtype=np.float64)), x, training=True)
    np.testing.assert_allclose(after["running_mean"], 0.25 * mean)
    np.testing.assert_allclose(after["running_var"], 0.75 + 0.25 * variance)
    params, buffers = nn.split(nn.BatchNorm1d(2, momentum=None, dtype=np.float64))
    for k in (1.0, 2.0, 6.0):
        _, buffers = nn.functional_call(params, buffers, k * x, training=True)
    np.testing.assert_allclose(buffers["running_mean"], 3 * mean)
    np.testing.assert_allclose(buffers["running_var"], variance * (1 + 4 + 36) / 3)


class Twice(nn.Module):
    """One layer called twice: the second call starts from what the first one left."""

    def __init__(self):
        self.bn = nn.BatchNorm1d(2, momentum=0.5, dtype=np.float64)

    def __call__(self, x, *, training=False):
        return self.bn(self.bn(x, training=training) + 4.0, training=training)


def test_a_layer_called_twice_moves_twice():
    x = normal(0, 6, 2)
    _, after = nn.functional_call(*nn.split(Twice()), x, training=True)
    assert after["bn.num_batches_tracked"] == 2
    np.testing.assert_allclose(after["bn.running_mean"], 0.25 * x.mean(0) + 0.5 * 4.0, atol=1e-12)


def test_split_and_merge_are_inverse_at_any_depth():
    model = {"a": [network(), nn.BatchNorm2d(3)], "b": (nn.Linear(2, 2, key=KEY), normal(0, 2))}
    params, buffers = nn.split(model)
    assert list(buffers) == [
        f"a.{i}{name}" for i in ("0.1.", "1.") for name in ("running_mean", "running_var", "num_batches_tracked")
    ]
    assert all(leaf.dtype.kind == "f" for leaf in tree.leaves(params))
    whole = nn.merge(params, buffers)
    assert tree.flatten(whole)[1] == tree.flatten(model)[1]
    for ours, theirs in zip(tree.leaves(whole), tree.leaves(model), strict=True):
        np.testing.assert_array_equal(ours, theirs)


def test_without_running_statistics_nothing_is_tracked():
    layer = nn.BatchNorm1d(2, affine=False, track_running_stats=False)
    x = normal(0, 5, 2, dtype=np.float32)
    assert layer.state_dict() == {}
    np.testing.assert_array_equal(layer(x), layer(x, training=True))
    np.testing.assert_allclose(layer(x), (x - x.mean(0)) / np.sqrt(x.var(0) + 1e-5), rtol=1e-5, atol=1e-6)


def test_statistics_keep_their_dtype():
    params, buffers = nn.split(nn.BatchNorm1d(2))
    _, after = nn.functional_call(params, buffers, normal(0, 5, 2), training=True)
    assert [v.dtype for v in after.values()] == [v.dtype for v in buffers.values()]


def test_group_norm_normalises_each_group():
    x = normal(0, 2, 6, 5) * 3 + 1
    y = F.group_norm(x, 3, eps=0.0).reshape(2, 3, 10)
    np.testing.assert_allclose(y.mean(2), 0, atol=1e-12)
    np.testing.assert_allclose(y.var(2), 1)


# --- errors -----------------------------------------------------------------------------------------------------------
def inside_a_checkpoint(model, x):
    params, buffers = nn.split(model)

    class Block(nn.Module):
        def __init__(self):
            self.inner = params

        def __call__(self, x):
            return tg.checkpoint(lambda x: self.inner(x, training=True))(x)

    return nn.functional_call(Block(), {f"inner.{name}": b for name, b in buffers.items()}, x)


class Copying(nn.Module):
    def __init__(self):
        self.bn = nn.BatchNorm1d(3)

    def __call__(self, x):
        return tree.map(lambda w: w * 2.0, self.bn)(x, training=True)


X = normal(0, 4, 3, dtype=np.float32)
ERRORS = [
    (lambda: network()(X, training=True), ArgumentError, "training changes its running_mean.* nothing takes the new"),
    (lambda: nn.split(nn.BatchNorm1d(3))[0](X), ArgumentError, "its running statistics were split off"),
    (lambda: nn.merge(nn.Linear(2, 2), {"a.b": X}), ArgumentError, "the model has no place for a.b"),
    (lambda: nn.functional_call(*nn.split(Copying()), X), ArgumentError, "a BatchNorm1d that is not part of the model"),
    (lambda: inside_a_checkpoint(nn.BatchNorm1d(3), X), ArgumentError, "inside a loop, a branch, a checkpoint"),
    (lambda: nn.BatchNorm1d(4)(X), ShapeError, r"f32\[4, 3\] is not \[N, C\] or \[N, C, L\] with C = 4"),
    (lambda: nn.BatchNorm2d(3)(X), ShapeError, r"is not \[N, C, H, W\] with C = 3"),
    (lambda: F.batch_norm(X[:1], training=True), ShapeError, r"f32\[1, 3\] has one value per channel"),
    (lambda: nn.GroupNorm(4, 6), ShapeError, "num_groups=4 does not divide num_channels=6"),
    (lambda: nn.GroupNorm(1, 4)(X), ShapeError, r"shape \(4, 3\) is not \[N, C, ...\] with C = 4"),
    (lambda: F.group_norm(X, 2), ShapeError, "channels for 2 groups"),
    (lambda: tg.grad(lambda m: m(X).sum())(network()), GradientError, r"\n  fix: .*nn.split\(model\)"),
]


@pytest.mark.parametrize(("call", "kind", "text"), ERRORS, ids=range(len(ERRORS)))
def test_errors(call, kind, text):
    with pytest.raises(kind, match=text) as caught:
        call()
    assert "\n  fix: " in str(caught.value)


# --- state dicts ------------------------------------------------------------------------------------------------------
def test_state_dict_round_trip_changes_nothing_but_the_arrays():
    a, b = network(), network(np.float32)
    loaded = b.load_state_dict(a.state_dict())
    assert tree.flatten(loaded)[1] == tree.flatten(b)[1]
    for name, value in loaded.state_dict().items():
        assert value.dtype == b.state_dict()[name].dtype and value is not a.state_dict()[name]
        np.testing.assert_array_equal(value, a.state_dict()[name].astype(value.dtype))


def test_everything_that_does_not_fit_is_told_at_once():
    state = network().state_dict()
    del state["0.weight"], state["1.running_var"]
    state |= {"3.weight": np.ones((6, 4)), "0.bias": np.arange(6), "extra": np.ones(2, np.int8), "more": 3}
    with pytest.raises(StateDictError) as caught:
        network().load_state_dict(state)
    assert caught.value.message.splitlines() == [
        "load_state_dict: Sequential: the arrays do not fit",
        "    missing: 0.weight f64[6, 3], 1.running_var f64[6]",
        "    unexpected: extra i8[2], more (int)",
        "    of another shape: 3.weight f64[6, 4] for f64[4, 6]",
        "    of another kind: 0.bias i64[6] for f64[6]",
    ]
    with pytest.raises(StateDictError) as caught:
        network().load_state_dict(state, strict=False)
    assert "missing" not in caught.value.message and "3.weight" in caught.value.message


def test_not_strict_keeps_what_is_missing_and_ignores_what_is_unexpected():
    model = network()
    changed = model.load_state_dict({"3.bias": np.full(4, 7.0), "other": X}, strict=False)
    np.testing.assert_array_equal(changed[3].bias, np.full(4, 7.0))
    np.testing.assert_array_equal(changed[0].weight, model[0].weight)


def test_names_that_collide_are_refused():
    class Collide(nn.Module):
        def __init__(self):
            self.held = {"a.b": X, "a": {"b": X}}

    with pytest.raises(ArgumentError, match="two arrays have the name held.a.b"):
        Collide().state_dict()


def test_tracked_models_load_tensors_and_give_arrays():
    tracked = tg.track(nn.split(network())[0])
    state = {name: np.full(value.shape, 2.0) for name, value in tracked.state_dict().items()}
    loaded = tracked.load_state_dict(state)
    assert all(isinstance(w, tg.Tensor) and w.requires_grad and w.is_leaf for w in tree.leaves(loaded))
    assert (loaded[0].weight.detach().numpy() == 2.0).all()
    plain = nn.split(network())[0].load_state_dict(loaded.state_dict())
    assert all(type(w) is np.ndarray and (w == 2.0).all() for w in tree.leaves(plain))
