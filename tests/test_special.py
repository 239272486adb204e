"""Special functions against SciPy, their gradients, and SciPy's own functions called with traced values."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

import tracegrad as tg
from tracegrad.errors import ArgumentError
from tracegrad.numpy import special
from tracegrad.testing import check_grads

scipy_special = pytest.importorskip("scipy.special")
RNG = np.random.default_rng(3)
X = np.concatenate([np.linspace(-4.7, 9.3, 41), [0.0, -0.0, 1.0, -2.0, np.inf, np.nan, 1e-9, 60.5, 170.2]])
P = np.concatenate([np.linspace(-1.0, 1.0, 41), [1e-9, 1 - 1e-12, 2.0, np.nan]])
A, B = np.meshgrid([0.0, -1.0, 0.3, 2.5, np.nan], [0.0, -1.0, 0.3, 2.5, np.nan])
ARGUMENTS: dict[str, tuple[Any, ...]] = {
    **dict.fromkeys("erf erfc expit gammaln digamma psi log_expit gamma ndtr entr".split(), (X,)),
    "erfinv": (P,), "logit": ((P + 1.0) / 2.0,), "ndtri": ((P + 1.0) / 2.0,),
    **dict.fromkeys("xlogy xlog1py rel_entr kl_div".split(), (A, B)),
    **dict.fromkeys("beta betaln".split(), (np.abs(A) + 0.1, np.abs(B) + 0.2)),
}  # fmt: skip


@pytest.mark.parametrize("name", ARGUMENTS)
def test_against_scipy(name: str) -> None:
    ours, theirs = getattr(special, name), getattr(scipy_special, name)
    operands = ARGUMENTS[name]
    with np.errstate(all="ignore"):
        expected = theirs(*operands)
        for found in (ours(*operands), tg.jit(ours)(*operands), tg.jit(lambda *xs: theirs(*xs))(*operands)):
            np.testing.assert_allclose(found, expected, rtol=1e-11, atol=1e-14)
        narrow = tg.jit(ours)(*(x.astype(np.float32) for x in operands))
    assert narrow.dtype == np.float32 and np.shape(ours(*(0.5 for _ in operands))) == ()


@pytest.mark.parametrize("name", ARGUMENTS)
def test_second_derivatives(name: str) -> None:
    low, high = {"erfinv": (-0.9, 0.9), "logit": (0.1, 0.9), "ndtri": (0.1, 0.9)}.get(name, (0.3, 3.0))
    operands = [RNG.uniform(low, high, 4) for _ in ARGUMENTS[name]]
    check_grads(getattr(special, name), operands, order=2, rtol=1e-4, atol=1e-4)
    if name in ("gamma", "gammaln", "digamma"):
        check_grads(getattr(special, name), [np.array([-0.4, -2.7, -3.3])], order=1, rtol=1e-4, atol=1e-4)


def test_derivatives_of_digamma() -> None:
    x = np.array([0.1, 1.0, 2.5, 30.0, -0.5, -3.2])
    np.testing.assert_allclose(special.polygamma(1, x), scipy_special.polygamma(1, x), rtol=1e-13)
    np.testing.assert_allclose(special.polygamma(0, x), scipy_special.digamma(x), rtol=1e-13)
    second = tg.grad(lambda v: special.polygamma(1, v).sum())(x[:4])
    np.testing.assert_allclose(second, scipy_special.polygamma(2, x[:4]), rtol=1e-10)
    with pytest.raises(ArgumentError, match="polygamma at .*: n=2 is not supported"):
        special.polygamma(2, x)


def test_masked_places_keep_their_gradients() -> None:
    x = np.array([0.0, 0.5, 2.0])
    np.testing.assert_allclose(tg.grad(lambda v: special.xlogy(v, np.ones(3)).sum())(x), np.zeros(3))
    found = tg.grad(lambda v: np.where(v > 0.0, special.gammaln(v), 0.0).sum())(x)
    np.testing.assert_allclose(found, [0.0, *scipy_special.digamma(x[1:])])


def test_on_the_tape() -> None:
    x = tg.tensor([0.5, 1.5], requires_grad=True)
    special.gammaln(x).sum().backward()
    np.testing.assert_allclose(x.grad.numpy(), scipy_special.digamma([0.5, 1.5]))
