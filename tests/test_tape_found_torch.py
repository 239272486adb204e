"""The tape beside PyTorch, where random programs found differences: views, memory, kept gradients."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest
from test_tape_torch import Program, assert_alike, leaf, plain

import tracegrad as tg

torch = pytest.importorskip("torch")
PROGRAMS: list[Program] = []


@pytest.fixture(autouse=True)
def _float64() -> Iterator[None]:
    torch.set_default_dtype(torch.float64)
    yield
    torch.set_default_dtype(torch.float32)


def same(program: Program) -> Program:
    PROGRAMS.append(program)
    return program


@same
def a_view_of_everything_is_another_tensor(T: Any) -> Any:
    x = leaf(T) * 1.0
    views = [x[:], x[...], x.view(3), x.squeeze(), x.reshape(3), x.permute(0), x.swapaxes(0, 0), x.ravel(), x.expand(3)]
    for y in views:
        y += 1.0
    return [y is x for y in views], [y._base is x for y in views], x, x._version


@same
def results_of_no_work_have_memory_of_their_own(T: Any) -> Any:
    x = T.tensor(2.0)
    one = T.tensor([[3.0]])
    found = [x.sum(), x**1, +x * 1, x.clamp(-9.0), x.abs(), one.prod(dim=0), one.flip(0), x.max()]
    for y in found:
        y += 1.0
    return x, one, found


@same
def integers_are_rounded_to_a_copy(T: Any) -> Any:
    x = T.tensor([1, 2])
    y = x.floor()
    y += 1
    return x, y


@same
def kept_gradients_stay_kept_after_a_change_in_place(T: Any) -> Any:
    x = leaf(T)
    y = x * 2.0
    y.retain_grad()
    y += 1.0
    (y * y).sum().backward()
    return y.retains_grad, y.grad


@same
def kept_gradients_of_a_base_whose_view_is_changed(T: Any) -> Any:
    y = leaf(T) * 2.0
    y.retain_grad()
    y[0].mul_(3.0)
    y.sum().backward()
    return y.retains_grad, y.grad


@same
def results_among_inputs_keep_their_gradients(T: Any) -> Any:
    x = leaf(T)
    y = x * 2.0
    (y * y).sum().backward(inputs=[y], retain_graph=True)
    y.sum().backward()
    return y.retains_grad, y.grad, x.grad


@same
def a_leaf_that_wants_no_gradient_any_more_gets_none(T: Any) -> Any:
    x = leaf(T)
    y = (x * x).sum()
    x.requires_grad_(False)
    y.backward()
    return x.grad is None


@same
def the_gradient_of_a_result_itself_needs_no_saved_values(T: Any) -> Any:
    x = leaf(T)
    y = x.cos()
    with T.no_grad():
        x.mul_(2.0)
    return T.autograd.grad(y.sum(), [y])


@same
def hooks_see_the_zeros_under_constant_functions(T: Any) -> Any:
    seen: list[Any] = []
    x = leaf(T)
    y = x * 2.0
    y.register_hook(lambda g: seen.append(g.clone()))
    y.floor().sum().backward()
    return seen, x.grad


@same
def results_of_cumsum_and_division_may_be_changed(T: Any) -> Any:
    x = leaf(T)
    y = (x * 1.0).cumsum(dim=0)
    y *= 2.0
    z = x / (x * x + 1.0)
    z -= 1.0
    (y + z).sum().backward()
    return x.grad


@same
def ravel_copies_what_does_not_lie_in_order(T: Any) -> Any:
    x = T.tensor([1.0, 2.0, 3.0, 4.0])
    y = x[::2].ravel()
    y += 1.0
    z = x[:2].ravel()
    z += 1.0
    return x, y, z


@same
def contiguous_puts_elements_in_order(T: Any) -> Any:
    x = T.tensor([[1.0, 2.0], [3.0, 4.0]])
    y = x.T.contiguous()
    return x.T.is_contiguous(), y.is_contiguous(), y.view(-1)


@same
def what_an_index_array_picks_lies_in_order(T: Any) -> Any:
    x = T.tensor([[[1.0, 2.0, 3.0]], [[4.0, 5.0, 6.0]]])
    y = x[..., [1, 2]]
    return y.is_contiguous(), y.view(4), y._base is None


@same
def values_along_an_axis_are_no_views(T: Any) -> Any:
    x = leaf(T) * 1.0
    y, z = x.max(dim=0)[0], x.sum(dim=0, keepdim=True)
    return y._base is None, z._base is None, y.detach_(), z.detach_().requires_grad


@same
def views_without_elements_share_versions(T: Any) -> Any:
    x = T.tensor([1.0, 2.0])
    x[2:] += 1.0
    return x._version > 0, x


@same
def squeeze_leaves_axes_of_other_sizes(T: Any) -> Any:
    x = T.tensor([[1.0, 2.0]])
    return x.squeeze(dim=1).shape == (1, 2), x.squeeze(dim=0).shape == (2,), x.narrow(1, -1, 1), x.amax(dim=1)


@pytest.mark.parametrize("program", PROGRAMS, ids=lambda p: p.__name__)
def test_behaves_like_pytorch(program: Program) -> None:
    assert_alike(plain(program(tg)), plain(program(torch)))


def test_narrow_beyond_the_end_is_refused() -> None:
    with pytest.raises(RuntimeError):
        torch.zeros(3).narrow(0, 2, 2)
    with pytest.raises(tg.errors.ShapeError, match="2 from 2 do not lie in axis 0"):
        tg.tensor(np.zeros(3)).narrow(0, 2, 2)
