"""Torch's fused attention against the definition, at many lengths, with as many key-value heads as models have."""

from __future__ import annotations

import math

import torch
from torch import Tensor
from torch.nn.functional import scaled_dot_product_attention

from scripts.check_gpu.checking import Asked, Found
from scripts.check_gpu.product import TYPES

LENGTHS = range(60, 132)
"""Tokens of a row, each of them: kernels work in blocks of 32 and 64, and their faults lie at the edges."""

HEADS, WIDTHS = 4, (32, 256)
"""Query heads; numbers of a head, 256 being Gemma's."""

SAME = {"float32": 1e-3, "bfloat16": 3e-2}
"""Most by which outputs, of order 1, may differ."""


def attention(query: Tensor, key: Tensor, value: Tensor, mask: Tensor) -> Tensor:
    """softmax(q k / sqrt(d)) v over the places where the mask is true (Vaswani et al. 2017, equation 1)."""
    scores = (query @ key.transpose(-1, -2)) / math.sqrt(query.shape[-1])
    return scores.masked_fill(~mask, -torch.inf).softmax(dim=-1) @ value


def furthest(length: int, width: int, key_heads: int, dtype: str, device: str) -> float:
    """Largest difference between fused attention and the definition in float64, of rows padded on the left.

    Keys and values are repeated for the query heads as transformers does: a view where there is one of them.
    """
    generator = torch.Generator().manual_seed(length)
    shapes = (HEADS, key_heads, key_heads)
    drawn = [torch.randn(2, heads, length, width, generator=generator) for heads in shapes]
    query, *once = (tensor.to(device, TYPES[dtype]) for tensor in drawn)
    repeated = (2, key_heads, HEADS // key_heads, length, width)
    key, value = (t[:, :, None].expand(repeated).reshape(2, HEADS, length, width) for t in once)
    mask = torch.ones(length, length, dtype=torch.bool, device=device).tril().expand(2, 1, -1, -1).clone()
    mask[1, :, 5:, :5] = False  # the places before stand for padding, and see themselves alone
    found = scaled_dot_product_attention(query, key, value, attn_mask=mask)
    return float((found.double() - attention(query.double(), key.double(), value.double(), mask)).abs().max())


def wrong_lengths(key_heads: int, dtype: str, device: str) -> dict[int, float]:
    """Lengths at which fused attention is wrong, with the largest difference."""
    found = {n: max(furthest(n, width, key_heads, dtype, device) for width in WIDTHS) for n in LENGTHS}
    return {length: apart for length, apart in found.items() if not apart <= SAME[dtype]}


def check(asked: Asked) -> Found:
    """Several key-value heads must be right. One may be wrong, since `store.pretrained.check_attention` guards it."""
    found = Found(remedy="set attn_implementation: eager, and look for another torch")
    said = []
    for dtype in TYPES:
        for heads in (HEADS, HEADS // 2, 1):
            wrong = wrong_lengths(heads, dtype, asked.device)
            found.figures[f"{heads} key-value heads {dtype}"] = {str(n): apart for n, apart in wrong.items()}
            words = f"{dtype}, {heads} of {HEADS} key-value heads: wrong at lengths {', '.join(map(str, wrong))}"
            if wrong and heads == 1:
                said.append(f"{words}; such models are refused without attn_implementation: eager")
            elif wrong:
                found.problems.append(words)
    found.said = "; ".join(said) or f"right at all lengths from {LENGTHS.start} to {LENGTHS.stop - 1}"
    return found
