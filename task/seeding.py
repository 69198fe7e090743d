"""Randomness as a function of (seed, purpose, context, index), never of the order of calls.

Each (seed, purpose, context) names one PCG64 stream through `numpy.random.SeedSequence`; index `i` owns the `width`
draws that start at position `i * width` of it. So trial 7 is the same whether it is drawn alone, in a shard of 64 or
among 5,000, and streams of different purposes cannot collide.
"""

from __future__ import annotations

import hashlib

import numpy as np
from numpy.typing import NDArray


def stable_hash(text: str) -> int:
    """A 64-bit hash of `text` that is the same in every process and on every machine."""
    return int.from_bytes(hashlib.blake2b(text.encode(), digest_size=8).digest(), "big")


def stream(seed: int, purpose: str, context: str = "", skip: int = 0) -> np.random.Generator:
    """The generator of (seed, purpose, context), advanced by `skip` draws."""
    bits = np.random.PCG64(np.random.SeedSequence([seed, stable_hash(purpose), stable_hash(context)]))
    return np.random.Generator(bits.advance(skip))


def uniforms(seed: int, purpose: str, context: str, count: int, width: int, start: int = 0) -> NDArray[np.float64]:
    """Uniform draws in [0, 1) for indices `start` to `start + count - 1`, shape (count, width).

    Row `i` depends on (seed, purpose, context, start + i, width) only: `Generator.random` takes exactly one output of
    PCG64 a double, so `advance` lands on the row's first draw.
    """
    return stream(seed, purpose, context, skip=start * width).random((count, width))
