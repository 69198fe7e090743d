"""The divergence of a changed model from the whole one, at the places of answers: KL(p_whole || p_changed).

Distributions are those of the next token over the whole vocabulary, in float32 whatever the model computes in. The
divergence of a prompt is the mean over its places, so that a prompt counts once, however many digits its numbers have.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from inside.answers import Answer
from inside.loading import BaseModel, padded


@dataclass(frozen=True)
class Batch:
    """Some answers as the model reads them.

    Attributes:
        ids, mask, positions: Of all tokens, shape (rows, tokens).
        columns: Those columns in which any row has a place.
        places: Row and column, among `columns`, of each place, shape (places,) each.
        share: One through the number of places of a place's row, shape (places,).
    """

    ids: Tensor
    mask: Tensor
    positions: Tensor
    columns: Tensor
    places: tuple[Tensor, Tensor]
    share: Tensor

    @classmethod
    def of(cls, answers: Sequence[Answer], device: torch.device) -> Batch:
        """Answers as one batch on a device."""
        ids, mask = padded([answer.ids for answer in answers])
        shifted = [[ids.shape[1] - len(a.ids) + place for place in a.places] for a in answers]
        columns = sorted({column for row in shifted for column in row})
        rows = [row for row, places in enumerate(shifted) for _ in places]
        places = [columns.index(column) for row in shifted for column in row]
        share = [1 / len(row) for row in shifted for _ in row]
        return cls(
            ids=ids.to(device),
            mask=mask.to(device),
            positions=(mask.cumsum(dim=1) - 1).clamp(min=0).to(device),
            columns=torch.tensor(columns, device=device),
            places=(torch.tensor(rows, device=device), torch.tensor(places, device=device)),
            share=torch.tensor(share, device=device),
        )

    def log_probabilities(self, base: BaseModel) -> Tensor:
        """Of the next token at each place, shape (places, vocabulary), float32."""
        logits = base.model(
            input_ids=self.ids,
            attention_mask=self.mask,
            position_ids=self.positions,
            use_cache=False,
            logits_to_keep=self.columns,
        ).logits
        return logits[self.places].float().log_softmax(dim=-1)

    def divergence(self, whole: Tensor, changed: Tensor) -> Tensor:
        """The sum of the divergences of all rows, in nats; both arguments as `log_probabilities` has them."""
        return ((whole.exp() * (whole - changed)).sum(dim=-1) * self.share).sum()


def batches(answers: Sequence[Answer], size: int, device: torch.device) -> Iterator[Batch]:
    """Answers in batches, those of like length together so that little is padding."""
    by_length = sorted(answers, key=lambda answer: len(answer.ids), reverse=True)
    for start in range(0, len(by_length), size):
        yield Batch.of(by_length[start : start + size], device)
