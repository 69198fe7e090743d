"""A batch of prompts on their way through a model: what has been computed of each row, and which of it counts."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

import torch
from torch import Tensor
from torch.nn.functional import pad
from transformers import DynamicCache

Computed = list[tuple[Tensor, Tensor]]
"""Keys and values of each layer, shape (1, heads, tokens, size), of the beginning of a prompt."""


def compute_prefix(model: Any, ids: Sequence[int]) -> Computed:
    """Keys and values of a beginning that prompts share, by itself: the same bits whichever prompts share it."""
    cache = DynamicCache()
    model(input_ids=torch.tensor([ids], device=model.device), past_key_values=cache, logits_to_keep=1)
    return [(layer.keys, layer.values) for layer in cache.layers]


class Batch:
    """Rows of unlike length, fed to a model in blocks of columns, each row going on from a shared beginning.

    Rows are padded on the left of their beginning and between it and what is their own. Columns that do not count are
    masked, and positions go on without them.
    """

    def __init__(self, model: Any, prefixes: Sequence[Computed]) -> None:
        """Set out from the beginning of each row, which may be empty (no layers) if it is for all of them."""
        lengths = [prefix[0][0].shape[2] if prefix else 0 for prefix in prefixes]
        columns = torch.arange(max(lengths)).expand(len(prefixes), -1)
        self._model, self._next = model, torch.tensor(lengths)
        self._mask = (columns >= max(lengths) - self._next[:, None]).long()
        self._cache = DynamicCache(_joined(prefixes, max(lengths)))

    def feed(self, block: Sequence[Sequence[int | None]], logits: int) -> Tensor:
        """Compute a block of further tokens, None where a row has none in a column.

        Returns:
            Logits of the last `logits` columns, shape (rows, logits, vocabulary).
        """
        device = self._model.device
        real = torch.tensor([[token is not None for token in row] for row in block]).long()
        positions = (self._next[:, None] + real.cumsum(1) - 1).clamp(min=0)
        self._mask, self._next = torch.cat([self._mask, real], dim=1), self._next + real.sum(1)
        return self._model(
            input_ids=torch.tensor([[token or 0 for token in row] for row in block], device=device),
            attention_mask=self._mask.to(device),
            position_ids=positions.to(device),
            past_key_values=self._cache,
            logits_to_keep=logits,
        ).logits

    def forget(self, dropped: Sequence[int]) -> None:
        """Take back the last `dropped[row]` tokens of each row, as if they had never been fed."""
        taken_back = torch.tensor(dropped)
        from_the_end = self._mask.flip(1).cumsum(1).flip(1)  # 1 at a row's last token, 2 at the one before it
        self._mask = self._mask * (from_the_end > taken_back[:, None])
        self._next = self._next - taken_back


def _joined(prefixes: Sequence[Computed], longest: int) -> Computed:
    """Beginnings as rows of one batch, padded on the left."""

    def stacked(parts: Iterable[Tensor]) -> Tensor:
        return torch.cat([pad(part, (0, 0, longest - part.shape[2], 0)) for part in parts])

    layers = zip(*prefixes, strict=True)
    return [(stacked(keys for keys, _ in layer), stacked(values for _, values in layer)) for layer in layers]


def in_columns(rows: Sequence[Sequence[int]], left: bool) -> list[list[int | None]]:
    """Rows of tokens as a block of columns, with None on the left or on the right of the shorter ones."""
    longest = max(map(len, rows))
    filled: list[list[None]] = [[None] * (longest - len(row)) for row in rows]
    return [[*gap, *row] if left else [*row, *gap] for row, gap in zip(rows, filled, strict=True)]
