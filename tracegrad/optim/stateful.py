"""Optimizers for the tape, as in `torch.optim`: they hold tensors, and `step()` changes these in place.

The update rules are the pure ones of this package, applied to one tensor at a time: a tensor without gradient is left
alone, and its count of updates stands still.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from functools import partial
from typing import Any, TypeAlias

import numpy as np

from tracegrad import tree
from tracegrad.errors import ArgumentError, TapeError
from tracegrad.optim.adaptive import adagrad, adam, adamw, rmsprop
from tracegrad.optim.optimizer import Optimizer, Rate
from tracegrad.optim.sgd import sgd
from tracegrad.tape.inplace import store
from tracegrad.tape.modes import enable_grad, no_grad
from tracegrad.tape.tensor import Tensor

Params: TypeAlias = Any
"""Tensors in any pytree (a list, a module made by `tg.track`), or a list of groups: dicts with "params" and options."""
Group: TypeAlias = dict[str, Any]


class TapeOptimizer:
    """Base: groups of tensors with their options, one state per tensor.

    `param_groups` may be changed between steps (`optimizer.param_groups[0]["lr"] = 0.01`); a rate may be a schedule.
    """

    def __init__(self, params: Params, rule: Callable[..., Optimizer], options: Group):
        self.rule = rule
        self.defaults = options
        self.param_groups: list[Group] = []
        self.state: dict[Tensor, Any] = {}
        for group in groups_of(params):
            self.add_param_group(group)

    def add_param_group(self, group: Group) -> None:
        """Add tensors with options of their own."""
        if unknown := set(group) - {"params", *self.defaults}:
            raise ArgumentError(f"optim: the option {sorted(unknown)[0]} is not known", fix=f"use {[*self.defaults]}")
        given = group["params"]
        tensors = tree.leaves(given.parameters() if hasattr(given, "parameters") else given)
        for t in tensors:
            if not isinstance(t, Tensor):
                raise ArgumentError(f"optim: a {type(t).__name__} is not a tensor", fix="pass tg.track(model)")
            if not t.is_leaf:
                raise TapeError(f"optim: {t.aval} is not a leaf, but the result of {t.grad_fn!r}", fix="pass leaves")
        if not tensors:
            raise ArgumentError("optim: there are no tensors to optimize", fix="pass tg.track(model), or a list")
        seen = {id(t) for held in self.param_groups for t in held["params"]} | {id(t) for t in tensors}
        if len(seen) < sum(len(held["params"]) for held in self.param_groups) + len(tensors):
            raise ArgumentError("optim: a tensor stands in the groups twice", fix="pass each tensor once")
        self.param_groups.append({**self.defaults, **group, "params": tensors})

    def zero_grad(self, set_to_none: bool = True) -> None:
        """Drop all gradients, or set them to zero."""
        for group in self.param_groups:
            for t in group["params"]:
                if t.grad is not None:
                    t.grad = None if set_to_none else Tensor(np.zeros(t.shape, t.dtype))

    def step(self, closure: Callable[[], Any] | None = None) -> Any:
        """Update every tensor that has a gradient; `closure`, if given, computes the loss first, which is returned."""
        loss = None
        if closure is not None:
            with enable_grad():
                loss = closure()
        with no_grad(), np.errstate(all="ignore"):
            for group in self.param_groups:
                rule = self.rule(**{k: v for k, v in group.items() if k not in ("params", "maximize")})
                for t in group["params"]:
                    if t.grad is not None:
                        self.update(t, -t.grad._data if group["maximize"] else t.grad._data, rule)
        return loss

    def update(self, t: Tensor, gradient: Any, rule: Optimizer) -> None:
        if t not in self.state:
            self.state[t] = rule.init(t._data)
        change, self.state[t] = rule.update(gradient, self.state[t], t._data)
        store(t, np.asarray(t._data + change, t.dtype), None, 0)

    def state_dict(self) -> dict[str, Any]:
        """Return the states by the number of their tensor, and the options of the groups, as arrays and numbers."""
        tensors = [t for group in self.param_groups for t in group["params"]]
        state = {i: tree.map(np.array, self.state[t]) for i, t in enumerate(tensors) if t in self.state}
        numbers = {t: i for i, t in enumerate(tensors)}
        groups = [{**group, "params": [numbers[t] for t in group["params"]]} for group in self.param_groups]
        return {"state": state, "param_groups": groups}

    def load_state_dict(self, saved: dict[str, Any]) -> None:
        """Take over what `state_dict` returned for tensors of the same shapes in the same order."""
        sizes = [[len(g["params"]) for g in groups] for groups in (self.param_groups, saved["param_groups"])]
        if sizes[0] != sizes[1]:
            raise ArgumentError(f"optim: groups of {sizes[1]} tensors do not fit {sizes[0]}", fix="use the same model")
        tensors = [t for group in self.param_groups for t in group["params"]]
        self.state = {tensors[i]: tree.map(np.array, state) for i, state in saved["state"].items()}
        for mine, theirs in zip(self.param_groups, saved["param_groups"], strict=True):
            mine.update({k: v for k, v in theirs.items() if k != "params"})

    def __repr__(self) -> str:
        shown = [{k: v if k != "params" else len(v) for k, v in group.items()} for group in self.param_groups]
        return f"{type(self).__name__}({', '.join(map(str, shown))})"


def groups_of(params: Params) -> list[Group]:
    """Return what was given as groups."""
    if isinstance(params, Tensor):
        raise ArgumentError("optim: params is one tensor, not several", fix="pass a list: [x]")
    if isinstance(params, Iterable) and not isinstance(params, (dict, str)):
        groups: list[Group] = list(params)
        if groups and all(isinstance(p, dict) and "params" in p for p in groups):
            return groups
        params = groups
    return [{"params": params}]


def renamed(rule: Callable[..., Optimizer], lr: Rate, **options: Any) -> Optimizer:
    """Call a rule with PyTorch's name of the learning rate."""
    return rule(lr, **options)


class SGD(TapeOptimizer):
    """Stochastic gradient descent on tensors; see `optim.sgd`.

    >>> import tracegrad as tg
    >>> w = tg.tensor([1.0, 2.0], requires_grad=True)
    >>> optimizer = SGD([w], lr=0.1)
    >>> (w * w).sum().backward()
    >>> optimizer.step()
    >>> w
    tensor([0.8000, 1.6000], requires_grad=True)
    """

    def __init__(
        self,
        params: Params,
        lr: Rate = 1e-3,
        momentum: float = 0.0,
        dampening: float = 0.0,
        weight_decay: float = 0.0,
        nesterov: bool = False,
        *,
        maximize: bool = False,
    ):
        options = {"lr": lr, "momentum": momentum, "dampening": dampening, "weight_decay": weight_decay}
        super().__init__(params, partial(renamed, sgd), {**options, "nesterov": nesterov, "maximize": maximize})


class Adam(TapeOptimizer):
    """Adam on tensors; see `optim.adam`."""

    def __init__(
        self,
        params: Params,
        lr: Rate = 1e-3,
        betas: tuple[float, float] = (0.9, 0.999),
        eps: float = 1e-8,
        weight_decay: float = 0.0,
        amsgrad: bool = False,
        *,
        maximize: bool = False,
    ):
        options = {"lr": lr, "betas": betas, "eps": eps, "weight_decay": weight_decay, "amsgrad": amsgrad}
        super().__init__(params, partial(renamed, adam), {**options, "maximize": maximize})


class AdamW(TapeOptimizer):
    """Adam with decoupled weight decay on tensors; see `optim.adamw`."""

    def __init__(
        self,
        params: Params,
        lr: Rate = 1e-3,
        betas: tuple[float, float] = (0.9, 0.999),
        eps: float = 1e-8,
        weight_decay: float = 1e-2,
        amsgrad: bool = False,
        *,
        maximize: bool = False,
    ):
        options = {"lr": lr, "betas": betas, "eps": eps, "weight_decay": weight_decay, "amsgrad": amsgrad}
        super().__init__(params, partial(renamed, adamw), {**options, "maximize": maximize})


class RMSprop(TapeOptimizer):
    """RMSprop on tensors; see `optim.rmsprop`."""

    def __init__(
        self,
        params: Params,
        lr: Rate = 1e-2,
        alpha: float = 0.99,
        eps: float = 1e-8,
        weight_decay: float = 0.0,
        momentum: float = 0.0,
        centered: bool = False,
        *,
        maximize: bool = False,
    ):
        options = {"lr": lr, "alpha": alpha, "eps": eps, "weight_decay": weight_decay, "momentum": momentum}
        super().__init__(params, partial(renamed, rmsprop), {**options, "centered": centered, "maximize": maximize})


class Adagrad(TapeOptimizer):
    """Adagrad on tensors; see `optim.adagrad`."""

    def __init__(
        self,
        params: Params,
        lr: Rate = 1e-2,
        lr_decay: float = 0.0,
        weight_decay: float = 0.0,
        initial_accumulator_value: float = 0.0,
        eps: float = 1e-10,
        *,
        maximize: bool = False,
    ):
        options = {"lr": lr, "lr_decay": lr_decay, "weight_decay": weight_decay, "eps": eps}
        more = {"initial_accumulator_value": initial_accumulator_value, "maximize": maximize}
        super().__init__(params, partial(renamed, adagrad), {**options, **more})


def clip_grad_norm_(
    tensors: Any, max_norm: float, norm_type: float = 2.0, error_if_nonfinite: bool = False
) -> float:
    """Scale the gradients of tensors in place so that their joint norm is at most `max_norm`; return the norm before.

    As torch.nn.utils.clip_grad_norm_ (Pascanu et al., 2013): `norm_type` may be 1, 2, inf or another p-norm. Raises
    ArgumentError for a norm that is not finite if `error_if_nonfinite`; otherwise it makes NaN of all gradients.
    """
    given = [tensors] if isinstance(tensors, Tensor) else tree.leaves(tensors)
    grads = [t.grad for t in given if isinstance(t, Tensor) and t.grad is not None]
    sizes = np.array([np.linalg.norm(g._data.ravel().astype(np.float64), norm_type) for g in grads])
    norm = float(np.linalg.norm(sizes, norm_type)) if grads else 0.0
    if error_if_nonfinite and not np.isfinite(norm):
        raise ArgumentError(f"clip_grad_norm_: the norm of the gradients is {norm}", fix="look for NaN and inf in them")
    share = max_norm / (norm + 1e-6)
    with no_grad(), np.errstate(all="ignore"):
        for g in grads:
            store(g, (g._data * (share if not share > 1.0 else 1.0)).astype(g.dtype), None, 0)
    return norm


def clip_grad_value_(tensors: Any, clip_value: float) -> None:
    """Limit every element of the gradients of tensors to [-clip_value, clip_value], in place, as PyTorch's."""
    given = [tensors] if isinstance(tensors, Tensor) else tree.leaves(tensors)
    with no_grad():
        for t in given:
            if isinstance(t, Tensor) and t.grad is not None:
                store(t.grad, np.clip(t.grad._data, -clip_value, clip_value), None, 0)
