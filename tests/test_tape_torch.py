"""The tape beside PyTorch: one program run by both, behaviour by behaviour, values and refusals alike.

A program takes the library (`tg` or `torch`) and returns values to compare. Where it raises, both must raise.
"""

from __future__ import annotations

import copy
import warnings
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import pytest
from tape_methods import MATRIX, METHODS

import tracegrad as tg

torch = pytest.importorskip("torch")

Program = Callable[[Any], Any]
PROGRAMS: list[Program] = []
REFUSED: list[Program] = []


@pytest.fixture(autouse=True)
def _float64() -> Iterator[None]:
    """PyTorch's default dtype becomes the one that NumPy, and so tracegrad, has."""
    torch.set_default_dtype(torch.float64)
    yield
    torch.set_default_dtype(torch.float32)


def same(program: Program) -> Program:
    PROGRAMS.append(program)
    return program


def refused(program: Program) -> Program:
    REFUSED.append(program)
    return program


def plain(value: Any) -> Any:
    """Return a value as something that can be compared across libraries."""
    if isinstance(value, (tg.Tensor, torch.Tensor)):
        return value.detach().numpy()
    if isinstance(value, (list, tuple)):
        return [plain(v) for v in value]
    return value


def assert_alike(ours: Any, theirs: Any) -> None:
    if isinstance(theirs, list):
        assert len(ours) == len(theirs)
        for a, b in zip(ours, theirs, strict=True):
            assert_alike(a, b)
    elif isinstance(theirs, np.ndarray):
        assert ours.shape == theirs.shape
        np.testing.assert_allclose(ours, theirs, rtol=1e-12, atol=1e-14)
    else:
        assert ours == theirs


# --- leaves, requires_grad, is_leaf -----------------------------------------------------------------------------------


def leaf(T: Any, data: Any = (1.0, 2.0, 3.0)) -> Any:
    return T.tensor(data if not isinstance(data, tuple) else list(data), requires_grad=True)


@same
def a_leaf_has_no_grad_fn(T: Any) -> Any:
    x = leaf(T)
    return x.is_leaf, x.grad_fn is None, x.requires_grad, x.grad is None


@same
def a_result_has_a_grad_fn_and_is_no_leaf(T: Any) -> Any:
    y = leaf(T) * 2
    return y.is_leaf, y.grad_fn is None, y.requires_grad


@same
def results_of_untracked_tensors_are_leaves(T: Any) -> Any:
    y = T.tensor([1.0]) * 2
    return y.is_leaf, y.grad_fn is None, y.requires_grad


@same
def requires_grad_underscore_returns_the_tensor(T: Any) -> Any:
    x = T.tensor([1.0])
    return x.requires_grad_() is x, x.requires_grad, x.requires_grad_(False).requires_grad


@same
def requires_grad_after_the_fact_tracks_what_follows(T: Any) -> Any:
    x = T.tensor([1.0, 2.0])
    before = (x * x).sum()
    x.requires_grad = True
    after = (x * x).sum()
    after.backward()
    return before.requires_grad, after.requires_grad, x.grad


@same
def requires_grad_underscore_on_a_result_changes_nothing(T: Any) -> Any:
    y = leaf(T) * 2
    return y.requires_grad_() is y, y.is_leaf


@refused
def setting_requires_grad_true_on_a_result(T: Any) -> Any:
    (leaf(T) * 2).requires_grad = True


@refused
def requires_grad_of_integers(T: Any) -> Any:
    return T.tensor([1, 2], requires_grad=True)


@refused
def requires_grad_later_of_integers(T: Any) -> Any:
    return T.tensor([1, 2]).requires_grad_()


@refused
def requires_grad_false_on_a_result(T: Any) -> Any:
    (leaf(T) * 2).requires_grad = False


@same
def names_of_the_first_nodes(T: Any) -> Any:
    x = leaf(T)
    found = [x - 2.0, x * 2.0, x + 2.0, x / 2.0, -x, x.exp(), x.log(), x.tanh(), x.sigmoid(), x.sum(), x.sin()]
    return [y.grad_fn.name() for y in found]


@same
def next_functions_end_at_the_variable(T: Any) -> Any:
    x = leaf(T)
    y = x - 2.0
    return y.grad_fn.next_functions[0][0].variable is x, y.grad_fn.next_functions[0][0].name().split(":")[-1]


@same
def next_functions_of_constants_are_none(T: Any) -> Any:
    return [f is None for f, _ in (leaf(T) * T.tensor([1.0, 2.0, 3.0])).grad_fn.next_functions]


# --- backward ---------------------------------------------------------------------------------------------------------


@same
def backward_of_a_mean(T: Any) -> Any:
    x = leaf(T, [[1.0, 2.0], [3.0, 4.0]])
    (3 * (x - 2) ** 2).mean().backward()
    return x.grad


@same
def gradients_accumulate(T: Any) -> Any:
    x = leaf(T)
    for _ in range(3):
        (x * x).sum().backward()
    return x.grad


@same
def the_same_grad_tensor_is_added_to(T: Any) -> Any:
    x = leaf(T)
    (x * x).sum().backward()
    first = x.grad
    (x * x).sum().backward()
    return x.grad is first, first


@same
def two_leaves_of_a_sum_do_not_share_their_gradient(T: Any) -> Any:
    a, b = leaf(T), leaf(T)
    (a + b).backward(T.tensor([1.0, 1.0, 1.0]))
    a.grad.zero_()
    return a.grad, b.grad


@same
def a_gradient_given_to_backward(T: Any) -> Any:
    x = leaf(T)
    (x * x).backward(T.tensor([0.1, 1.0, 0.0001]))
    return x.grad


@same
def a_gradient_given_by_keyword(T: Any) -> Any:
    x = leaf(T)
    (x * 3).backward(gradient=T.tensor([1.0, 0.0, 2.0]))
    return x.grad


@same
def one_element_counts_as_a_scalar(T: Any) -> Any:
    x = leaf(T, [[2.0]])
    (x * x).backward()
    return x.grad


@same
def backward_of_a_leaf(T: Any) -> Any:
    x = leaf(T, 5.0)
    x.backward()
    return x.grad


@refused
def backward_of_a_vector_without_gradient(T: Any) -> Any:
    (leaf(T) * 2).backward()


@refused
def backward_of_an_untracked_tensor(T: Any) -> Any:
    (T.tensor([1.0]) * 2).sum().backward()


@refused
def backward_with_a_gradient_of_another_shape(T: Any) -> Any:
    (leaf(T) * 2).backward(T.tensor([1.0, 2.0]))


@refused
def a_second_backward(T: Any) -> Any:
    y = (leaf(T) ** 2).sum()
    y.backward()
    y.backward()


@same
def a_second_backward_with_retain_graph(T: Any) -> Any:
    x = leaf(T)
    y = (x**3).sum()
    y.backward(retain_graph=True)
    y.backward()
    return x.grad


@same
def a_second_backward_where_nothing_was_kept(T: Any) -> Any:
    x = leaf(T)
    y = (x + 1).sum()
    y.backward()
    y.backward()
    return x.grad


@refused
def a_shared_part_that_was_freed(T: Any) -> Any:
    shared = leaf(T).exp()
    shared.sum().backward()
    (shared * 2).sum().backward()


@same
def a_diamond(T: Any) -> Any:
    x = leaf(T)
    a, b = x * 2, x.exp()
    (a * b + a).sum().backward()
    return x.grad


@same
def a_value_used_twice(T: Any) -> Any:
    x = leaf(T)
    (x * x * x).sum().backward()
    return x.grad


@same
def a_tensor_that_is_not_used_gets_no_gradient(T: Any) -> Any:
    x, y = leaf(T), leaf(T)
    (x * 2).sum().backward()
    return y.grad is None


@same
def rounding_gives_zeros_not_none(T: Any) -> Any:
    x = leaf(T, [1.4, 2.6])
    (x.floor() + x.sign() + x.round()).sum().backward()
    return x.grad


@same
def backward_into_chosen_inputs(T: Any) -> Any:
    x, y = leaf(T), leaf(T)
    (x * y).sum().backward(inputs=[x])
    return x.grad, y.grad is None


@same
def backward_into_a_result(T: Any) -> Any:
    x = leaf(T)
    y = x * 2
    (y * y).sum().backward(inputs=[y])
    return y.grad if T is torch else y._grad, x.grad is None


@same
def gradients_made_with_create_graph_are_not_shared(T: Any) -> Any:
    a, b = leaf(T), leaf(T)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        (a + b).sum().backward(create_graph=True)
    with T.no_grad():
        a.grad.zero_()
    return a.grad, b.grad


@same
def a_function_with_its_own_gradient(T: Any) -> Any:
    class Cube((T.autograd if T is torch else T).Function):  # type: ignore[misc,name-defined]
        @staticmethod
        def forward(ctx: Any, x: Any, scale: float) -> Any:
            y = x**3 * scale
            ctx.save_for_backward(x)
            ctx.scale = scale
            return y

        @staticmethod
        def backward(ctx: Any, ct: Any) -> Any:
            (x,) = ctx.saved_tensors
            return 3 * x**2 * ctx.scale * ct, None

    x, y = leaf(T), T.tensor([1.0, 1.0, 1.0])
    found = Cube.apply(x, 2.0)
    (first,) = T.autograd.grad(found.sum(), x, create_graph=True)
    (second,) = T.autograd.grad(first.sum(), x)
    return found, first, second, Cube.apply(y, 2.0).requires_grad, found.grad_fn.name()


@same
def several_outputs_at_once(T: Any) -> Any:
    x = leaf(T)
    T.autograd.backward([(x * 2).sum(), (x * x).sum()])
    return x.grad


@same
def grad_of_a_result_is_not_kept(T: Any) -> Any:
    x = leaf(T)
    y = x * 2
    y.sum().backward()
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        found = y.grad
    return found is None, len(caught)


@same
def retain_grad_keeps_it(T: Any) -> Any:
    x = leaf(T)
    y = x * 2
    y.retain_grad()
    (y * y).sum().backward()
    return y.grad, y.retains_grad


@refused
def retain_grad_of_an_untracked_tensor(T: Any) -> Any:
    T.tensor([1.0]).retain_grad()


@same
def where_keeps_nan_out(T: Any) -> Any:
    x = leaf(T, [-1.0, 4.0])
    (x * 2).where(x > 0, x.log()).sum().backward()
    return x.grad


# --- autograd.grad, higher orders -------------------------------------------------------------------------------------


@same
def grad_returns_a_tuple_and_accumulates_nothing(T: Any) -> Any:
    x, y = leaf(T), leaf(T)
    found = T.autograd.grad((x * x * y).sum(), [x, y])
    return len(found), found, x.grad is None


@same
def grad_of_an_intermediate(T: Any) -> Any:
    x = leaf(T)
    y = x * 2
    return T.autograd.grad((y * y).sum(), [y, x])


@same
def grad_with_cotangents(T: Any) -> Any:
    x = leaf(T)
    return T.autograd.grad([x * x, x * 3], x, [T.tensor([1.0, 0.0, 1.0]), T.tensor([2.0, 2.0, 2.0])])


@refused
def grad_of_what_is_not_used(T: Any) -> Any:
    return T.autograd.grad((leaf(T) * 2).sum(), leaf(T))


@same
def grad_of_what_is_not_used_allowed(T: Any) -> Any:
    return T.autograd.grad((leaf(T) * 2).sum(), leaf(T), allow_unused=True)[0] is None


@same
def grad_of_what_is_not_used_materialised(T: Any) -> Any:
    return T.autograd.grad((leaf(T) * 2).sum(), leaf(T), allow_unused=True, materialize_grads=True)


@refused
def grad_of_an_input_without_requires_grad(T: Any) -> Any:
    x = T.tensor([1.0])
    return T.autograd.grad((leaf(T) * x).sum(), x)


@same
def create_graph_gives_the_second_derivative(T: Any) -> Any:
    x = leaf(T)
    (first,) = T.autograd.grad((x**3).sum(), x, create_graph=True)
    (second,) = T.autograd.grad(first.sum(), x, create_graph=True)
    (third,) = T.autograd.grad(second.sum(), x)
    return first, second, third, first.requires_grad, third.requires_grad


@same
def backward_with_create_graph(T: Any) -> Any:
    x = leaf(T, 2.0)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # PyTorch warns of a reference cycle
        (x**3).backward(create_graph=True)
    first = x.grad
    x.grad = None
    first.backward()
    return first, x.grad, first.requires_grad


@same
def a_gradient_penalty(T: Any) -> Any:
    w = leaf(T, [[1.0, 2.0], [3.0, 4.0]])
    x = leaf(T, [0.5, -0.25])
    (gx,) = T.autograd.grad((w @ x).tanh().sum(), x, create_graph=True)
    ((gx * gx).sum() + w.sum()).backward()
    return w.grad, x.grad


# --- modes, detach ----------------------------------------------------------------------------------------------------


@same
def no_grad_records_nothing(T: Any) -> Any:
    x = leaf(T)
    with T.no_grad():
        y = x * 2
        inside = T.is_grad_enabled()
    return y.requires_grad, y.grad_fn is None, inside, T.is_grad_enabled()


@same
def no_grad_as_a_decorator(T: Any) -> Any:
    @T.no_grad()
    def f(x: Any) -> Any:
        return x * 2

    return f(leaf(T)).requires_grad


@same
def enable_grad_inside_no_grad(T: Any) -> Any:
    x = leaf(T)
    with T.no_grad(), T.enable_grad():
        y = x * 2
    return y.requires_grad


@same
def set_grad_enabled_as_a_function(T: Any) -> Any:
    T.set_grad_enabled(False)
    off = (leaf(T) * 2).requires_grad
    T.set_grad_enabled(True)
    return off, (leaf(T) * 2).requires_grad


@same
def set_grad_enabled_as_a_context(T: Any) -> Any:
    with T.set_grad_enabled(False):
        off = (leaf(T) * 2).requires_grad
    return off, T.is_grad_enabled()


@same
def leaves_made_under_no_grad_can_require_gradients(T: Any) -> Any:
    with T.no_grad():
        x = leaf(T)
    return x.requires_grad


@same
def detach_shares_memory_and_is_untracked(T: Any) -> Any:
    x = leaf(T)
    y = (x * 2).detach()
    z = x.detach()
    z[0] = 10.0
    return y.requires_grad, y.is_leaf, x, z.requires_grad


@same
def detach_stops_the_gradient(T: Any) -> Any:
    x = leaf(T)
    (x * x.detach()).sum().backward()
    return x.grad


@same
def clone_passes_the_gradient(T: Any) -> Any:
    x = leaf(T)
    y = x.clone()
    y[0] = 0.0
    (y * y).sum().backward()
    return x, x.grad


@same
def data_is_untracked_and_shared(T: Any) -> Any:
    x = leaf(T)
    x.data += 1.0
    return x, x.data.requires_grad, x._version


# --- in-place operations and versions ---------------------------------------------------------------------------------


@refused
def in_place_on_a_leaf(T: Any) -> Any:
    x = leaf(T)
    x += 1


@refused
def in_place_method_on_a_leaf(T: Any) -> Any:
    leaf(T).add_(1)


@refused
def item_assignment_on_a_leaf(T: Any) -> Any:
    x = leaf(T)
    x[0] = 1.0


@refused
def in_place_on_a_view_of_a_leaf(T: Any) -> Any:
    x = leaf(T)
    x[:2].mul_(2)


@same
def in_place_on_a_leaf_under_no_grad(T: Any) -> Any:
    x = leaf(T)
    with T.no_grad():
        x -= 1.0
        x.mul_(2.0)
    return x, x.is_leaf, x.requires_grad


@same
def in_place_on_a_result(T: Any) -> Any:
    x = leaf(T)
    y = x * 2
    y += x
    y.mul_(3.0)
    y.sum().backward()
    return y, x.grad


@same
def in_place_makes_an_untracked_tensor_tracked(T: Any) -> Any:
    x, y = leaf(T), T.tensor([1.0, 1.0, 1.0])
    y *= x
    y.sum().backward()
    return y.requires_grad, y.is_leaf, x.grad


@refused
def a_saved_result_changed_in_place(T: Any) -> Any:
    y = leaf(T).exp()
    y.add_(1)
    y.sum().backward()


@refused
def a_saved_operand_changed_in_place(T: Any) -> Any:
    x, w = leaf(T), T.tensor([1.0, 2.0, 3.0])
    y = x * w
    w.mul_(2)
    y.sum().backward()


@refused
def a_saved_operand_changed_through_a_view(T: Any) -> Any:
    x, w = leaf(T), T.tensor([1.0, 2.0, 3.0])
    y = x * w
    w[0] = 5.0
    y.sum().backward()


@refused
def a_saved_operand_changed_through_detach(T: Any) -> Any:
    x, w = leaf(T), T.tensor([1.0, 2.0, 3.0])
    y = x * w
    w.detach().zero_()
    y.sum().backward()


@refused
def a_saved_leaf_changed_under_no_grad(T: Any) -> Any:
    x = leaf(T)
    y = (x * x).sum()
    with T.no_grad():
        x += 1
    y.backward()


@same
def what_is_not_saved_may_change(T: Any) -> Any:
    x, w = leaf(T), T.tensor([1.0, 2.0, 3.0])
    y = x + w
    w.mul_(2)
    y.sum().backward()
    return x.grad


@same
def versions_count_changes(T: Any) -> Any:
    x = T.tensor([1.0, 2.0])
    counts = [x._version]
    x += 1
    counts.append(x._version)
    x[0] = 3.0
    counts.append(x._version)
    v = x[1:]
    v.zero_()
    return counts, x._version, v._version, x.detach()._version, x.clone()._version


@same
def multiplying_in_place_by_a_tracked_tensor(T: Any) -> Any:
    x, w = leaf(T), leaf(T, [2.0, 3.0, 4.0])
    y = x * 1.0
    y.mul_(w)
    y.sum().backward()
    return x.grad, w.grad


@same
def in_place_functions(T: Any) -> Any:
    found = []
    for name in ["exp_", "log_", "sqrt_", "tanh_", "sigmoid_", "sin_", "cos_", "neg_", "abs_", "relu_", "square_"]:
        x = leaf(T)
        y = x * 1.5
        getattr(y, name)()
        y.sum().backward()
        found += [y, x.grad]
    return found


@same
def clamp_and_pow_in_place(T: Any) -> Any:
    x = leaf(T)
    y = (x * 1.0).clamp_(min=1.5, max=2.5)
    z = (x * 1.0).pow_(3)
    (y + z).sum().backward()
    return y, z, x.grad


@same
def fill_and_copy_cut_the_gradient(T: Any) -> Any:
    x, w = leaf(T), leaf(T)
    y = x * 2
    y.fill_(7.0)
    z = x * 3
    z.copy_(w)
    (y + z).sum().backward()
    return y, z, x.grad, w.grad


@same
def zero_keeps_requires_grad(T: Any) -> Any:
    y = leaf(T) * 2
    y.zero_()
    return y, y.requires_grad


@refused
def in_place_to_a_larger_shape(T: Any) -> Any:
    x = T.tensor([1.0, 2.0])
    x += T.tensor([[1.0, 2.0], [3.0, 4.0]])


@refused
def in_place_float_into_integers(T: Any) -> Any:
    x = T.tensor([1, 2])
    x += 1.5


@refused
def in_place_on_an_expanded_tensor(T: Any) -> Any:
    T.tensor([[1.0]]).expand(2, 2).add_(1)


@same
def detach_in_place(T: Any) -> Any:
    y = leaf(T) * 2
    y.detach_()
    return y.requires_grad, y.is_leaf


# --- views ------------------------------------------------------------------------------------------------------------


@same
def views_share_memory(T: Any) -> Any:
    x = T.tensor([[1.0, 2.0], [3.0, 4.0]])
    flat, row, turned = x.view(4), x[1], x.T
    x[1, 0] = 30.0
    row += 1
    return flat, row, turned, x


@same
def a_view_changed_in_place_changes_the_base(T: Any) -> Any:
    w = leaf(T)
    x = T.tensor([[0.0, 0.0, 0.0], [1.0, 1.0, 1.0]])
    x[0].copy_(w)
    (x * x).sum().backward()
    return x, x.requires_grad, w.grad


@same
def a_base_changed_in_place_changes_its_views(T: Any) -> Any:
    w = leaf(T)
    x = w * 1.0
    v = x[1:]
    x.mul_(2.0)
    (v * v).sum().backward()
    return v, w.grad


@same
def a_view_of_a_view(T: Any) -> Any:
    w = leaf(T, [[1.0, 2.0], [3.0, 4.0], [5.0, 6.0]])
    x = w * 1.0
    x.T[0][1:].mul_(10.0)
    (x * x).sum().backward()
    return x, w.grad


@same
def slices_with_steps(T: Any) -> Any:
    w = leaf(T, [1.0, 2.0, 3.0, 4.0, 5.0])
    x = w * 1.0
    x[::2] += 10.0
    x[1:4] *= 2.0
    (x**2).sum().backward()
    return x, w.grad


@same
def item_assignment_of_tensors(T: Any) -> Any:
    w = leaf(T, [[1.0, 2.0], [3.0, 4.0]])
    x = w * 1.0
    x[0, 1] = w[1, 1] * 2
    x[1] = x[0]
    (x**2).sum().backward()
    return x, w.grad


@same
def item_assignment_with_lists_and_masks(T: Any) -> Any:
    w = leaf(T, [1.0, -2.0, 3.0, -4.0])
    x = w * 1.0
    x[[0, 2]] = 5.0
    x[x < 0] = 0.0
    (x * w).sum().backward()
    return x, w.grad


@same
def item_assignment_broadcasts(T: Any) -> Any:
    w = leaf(T, [1.0, 2.0])
    x = T.tensor([[0.0, 0.0], [0.0, 0.0]])
    x[:] = w
    x.sum().backward()
    return x, w.grad


@same
def indexing_gradients(T: Any) -> Any:
    w = leaf(T, [[1.0, 2.0, 3.0], [4.0, 5.0, 6.0]])
    found = [w[0], w[:, 1], w[1, 2], w[:, ::2], w[..., 0], w[None], w[[1, 1]], w[w > 2], w[T.tensor([0, 1]), 1]]
    sum((f * f).sum() for f in found).backward()
    return found, w.grad


@same
def iteration_and_unpacking(T: Any) -> Any:
    w = leaf(T, [[1.0, 2.0], [3.0, 4.0]])
    a, b = w
    (a * b).sum().backward()
    return a, b, len(w), w.grad


@refused
def view_of_what_does_not_lie_in_order(T: Any) -> Any:
    T.tensor([[1.0, 2.0], [3.0, 4.0]]).T.view(4)


# --- hooks ------------------------------------------------------------------------------------------------------------


@same
def a_hook_sees_and_replaces_the_gradient(T: Any) -> Any:
    x = leaf(T)
    seen = []
    y = x * 2
    y.register_hook(lambda g: seen.append(g))
    y.register_hook(lambda g: g * 10)
    (y * y).sum().backward()
    return seen, x.grad


@same
def hooks_of_leaves(T: Any) -> Any:
    x = leaf(T)
    handle = x.register_hook(lambda g: g * 2)
    (x * 3).sum().backward()
    handle.remove()
    (x * 3).sum().backward()
    return x.grad


@same
def hooks_run_in_order_on_the_complete_gradient(T: Any) -> Any:
    x = leaf(T, 1.0)
    order = []
    y = x * 1.0
    y.register_hook(lambda g: order.append(("first", float(g))))
    y.register_hook(lambda g: order.append(("second", float(g))))
    (y * 2 + y * 3).backward()
    return [list(o) for o in order]


@same
def a_hook_after_accumulation(T: Any) -> Any:
    x = leaf(T)
    seen = []

    def hook(p: Any) -> None:
        seen.append(p.grad.clone())
        p.grad = None

    x.register_post_accumulate_grad_hook(hook)
    (x * 2).sum().backward()
    (x * 3).sum().backward()
    return seen, x.grad is None


@refused
def a_hook_on_an_untracked_tensor(T: Any) -> Any:
    T.tensor([1.0]).register_hook(lambda g: g)


@same
def retain_grad_sees_what_hooks_made(T: Any) -> Any:
    x = leaf(T)
    y = x * 2
    y.retain_grad()
    y.register_hook(lambda g: g * 10)
    y.sum().backward()
    return y.grad, x.grad


# --- values -----------------------------------------------------------------------------------------------------------


@same
def numbers_out_of_tensors(T: Any) -> Any:
    x = T.tensor([[1.5]])
    return x.item(), float(x), int(x), bool(x), T.tensor([1, 2]).tolist(), T.tensor(3).item(), [1, 2, 3][T.tensor(1)]


@refused
def item_of_many(T: Any) -> Any:
    return T.tensor([1.0, 2.0]).item()


@refused
def truth_of_many(T: Any) -> Any:
    return bool(T.tensor([1.0, 2.0]))


@refused
def length_of_a_scalar(T: Any) -> Any:
    return len(T.tensor(1.0))


@refused
def iteration_of_a_scalar(T: Any) -> Any:
    return list(T.tensor(1.0))


@refused
def a_float_as_an_index(T: Any) -> Any:
    return [1, 2][T.tensor(1.0)]


@refused
def numpy_of_a_tracked_tensor(T: Any) -> Any:
    return leaf(T).numpy()


@same
def numpy_shares_memory(T: Any) -> Any:
    x = T.tensor([1.0, 2.0])
    x.numpy()[0] = 9.0
    return x


@same
def from_numpy_shares_memory(T: Any) -> Any:
    a = np.array([1.0, 2.0])
    x = T.from_numpy(a)
    a[0] = 5.0
    x[1] = 6.0
    return x, a


@same
def tensor_copies(T: Any) -> Any:
    a = np.array([1.0, 2.0])
    x = T.tensor(a)
    a[0] = 5.0
    return x


@same
def deep_copies_of_leaves(T: Any) -> Any:
    x = leaf(T)
    y = copy.deepcopy(x)
    with T.no_grad():
        y += 1
    return x, y, y.requires_grad


@refused
def deep_copies_of_results(T: Any) -> Any:
    return copy.deepcopy(leaf(T) * 2)


@same
def shapes_and_sizes(T: Any) -> Any:
    x = T.tensor([[1.0, 2.0, 3.0], [4.0, 5.0, 6.0]])
    return list(x.shape), list(x.size()), x.size(1), x.dim(), x.numel(), x.ndim, len(x), list(x.t().shape)


@same
def dlpack_shares_memory(T: Any) -> Any:
    x = T.tensor([1.0, 2.0])
    y = T.from_dlpack(x)
    y += 1
    return x, y


@refused
def dlpack_of_a_tracked_tensor(T: Any) -> Any:
    return np.from_dlpack(leaf(T))


@same
def text(T: Any) -> Any:
    x = leaf(T)
    shown = [
        T.tensor([1.0, 2.0]), T.tensor([1.5, -2.25]), T.tensor(3), T.tensor([True, False]), T.tensor([[1, 2], [3, 4]]),
        x, x * 2, T.tensor([]), T.tensor(1.5), T.tensor([1e-8, 1.0]), T.tensor([1e10, 1.0]), T.tensor([[1.0], [22.5]]),
        T.tensor([float("nan"), 1.0]), T.tensor([float("inf"), 1.5]), x.sum(),
    ]  # fmt: skip
    return [repr(s) for s in shown]


@same
def formatting(T: Any) -> Any:
    return f"{T.tensor(1.23456):.2f}", f"{T.tensor([1.0])}"


# --- PyTorch's methods ------------------------------------------------------------------------------------------------


def gradient_of(T: Any, function: Callable[[Any], Any], data: Any) -> Any:
    x = leaf(T, data)
    y = function(x)
    weights = T.tensor(np.linspace(0.5, 1.5, y.numel()).reshape(tuple(y.shape)))
    (y * weights).sum().backward()
    return [y, x.grad]


@pytest.mark.parametrize("name", METHODS)
def test_method(name: str) -> None:
    ours, theirs = (plain(gradient_of(T, METHODS[name], MATRIX)) for T in (tg, torch))
    assert_alike(ours, theirs)


@pytest.mark.parametrize("program", PROGRAMS, ids=lambda p: p.__name__)
def test_behaves_like_pytorch(program: Program) -> None:
    theirs = plain(program(torch))
    assert_alike(plain(program(tg)), theirs)


@pytest.mark.parametrize("program", REFUSED, ids=lambda p: p.__name__)
def test_refuses_like_pytorch(program: Program) -> None:
    with pytest.raises((RuntimeError, TypeError, ValueError, IndexError, BufferError, AttributeError)):
        program(torch)
    with pytest.raises(tg.TracegradError, match="fix: "):
        program(tg)


def test_training_with_batch_normalisation() -> None:
    """The same loop, with the same weights: parameters and running statistics stay alike."""
    rng = np.random.default_rng(0)
    x, y = rng.normal(size=(5, 8, 3)), rng.normal(size=(5, 8, 2))
    theirs = torch.nn.Sequential(torch.nn.Linear(3, 6), torch.nn.BatchNorm1d(6), torch.nn.ReLU(), torch.nn.Linear(6, 2))
    norm = tg.nn.BatchNorm1d(6, dtype=np.float64)
    ours = [tg.nn.Linear(3, 6, dtype=np.float64), norm, tg.nn.Linear(6, 2, dtype=np.float64)]
    for layer, place in ((0, 0), (2, 3)):
        weights = {k: v.detach().numpy().copy() for k, v in theirs[place].state_dict().items()}
        ours[layer] = ours[layer].load_state_dict(weights)
    first, norm, last = ours = tg.track(ours)
    a = tg.optim.SGD([p for m in ours for p in m.parameters()], lr=0.1, momentum=0.9)
    b = torch.optim.SGD(theirs.parameters(), lr=0.1, momentum=0.9)
    for xs, ys in zip(x, y, strict=True):
        for optimizer in (a, b):
            optimizer.zero_grad()
        loss = ((last(norm(first(tg.tensor(xs)), training=True).relu()) - ys) ** 2).mean()
        wanted = ((theirs(torch.tensor(xs)) - torch.tensor(ys)) ** 2).mean()
        loss.backward()
        wanted.backward()
        a.step()
        b.step()
        np.testing.assert_allclose(loss.item(), wanted.item(), rtol=1e-10)
    np.testing.assert_allclose(norm.running_mean.numpy(), theirs[1].running_mean.numpy(), rtol=1e-10)
    np.testing.assert_allclose(norm.running_var.numpy(), theirs[1].running_var.numpy(), rtol=1e-10)
    assert norm.num_batches_tracked.item() == 5
    np.testing.assert_allclose(norm.weight.detach().numpy(), theirs[1].weight.detach().numpy(), rtol=1e-9)
