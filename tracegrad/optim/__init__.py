"""Optimizers as pure pairs of functions, in the manner of optax; update rules equal PyTorch's.

    optimizer = optim.adam(1e-3)
    state = optimizer.init(params)
    updates, state = optimizer.update(grads, state, params)
    params = optim.apply_updates(params, updates)
    params, state = optimizer.step(grads, state, params)        # the last two lines in one

`params` is any pytree of floating-point arrays. A learning rate is a number, a schedule (a function of the count of
updates made so far), or a traced value: make the optimizer inside the compiled step, `optim.adam(lr).step(...)`, to
pass it as an argument. None of them ever compiles again.

Half precision: keep the weights in float32 and convert them in the loss, `w.astype(np.float16)`: gradients come back in
float32. Weights (or gradients) that are stored in half precision work, too: updates are computed in float32 with states
in float32, and the new weights are rounded once.

For the tape there are `SGD`, `Adam`, `AdamW`, `RMSprop` and `Adagrad`, which hold tensors and change them in `step()`.
"""

from tracegrad.optim.adaptive import adagrad, adam, adamw, lamb, rmsprop
from tracegrad.optim.groups import frozen, groups, masked
from tracegrad.optim.optimizer import Optimizer, apply_updates, chain
from tracegrad.optim.plateau import plateau
from tracegrad.optim.schedule import (
    constant,
    cosine,
    cosine_restarts,
    exponential,
    linear,
    multistep,
    one_cycle,
    polynomial,
    step_decay,
    warmup,
)
from tracegrad.optim.sgd import sgd
from tracegrad.optim.stateful import SGD, Adagrad, Adam, AdamW, RMSprop, clip_grad_norm_, clip_grad_value_
from tracegrad.optim.transform import (
    clip_by_global_norm,
    clip_by_value,
    global_norm,
    l1_decay,
    l2_decay,
    scale,
    weight_decay,
)

__all__ = [
    "adagrad", "Adagrad", "Adam", "adam", "AdamW", "adamw", "apply_updates", "chain", "clip_by_global_norm",
    "clip_by_value", "clip_grad_norm_", "clip_grad_value_", "constant", "cosine", "cosine_restarts", "exponential",
    "frozen", "global_norm", "groups", "l1_decay", "l2_decay", "lamb", "linear", "masked", "multistep", "one_cycle",
    "Optimizer", "plateau", "polynomial", "rmsprop", "RMSprop", "scale", "sgd", "SGD", "step_decay", "warmup",
    "weight_decay",
]  # fmt: skip
