"""Random numbers from explicit keys: the same bits on every machine, in eager and in compiled code.

A key is a plain uint32[2] array. Draws are functions of the key alone, so use every key once: `split` it, or `fold_in`
a step number, to get fresh ones. Inside compiled code a key is an argument like any other; a new key never compiles
again.

>>> from tracegrad import random
>>> first, second = random.split(random.key(0))
>>> random.uniform(first, (2,)).shape
(2,)
"""

from tracegrad.random.draws import bernoulli, bits, choice, normal, permutation, randint, uniform
from tracegrad.random.keys import fold_in, key, split

__all__ = ["bernoulli", "bits", "choice", "fold_in", "key", "normal", "permutation", "randint", "split", "uniform"]
