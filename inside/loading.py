"""The base model in memory, once for all arms."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor
from transformers import GenerationConfig

from store.evaluation import ModelSettings
from store.pretrained import device_at_hand, load_causal_model, load_tokenizer, stop_ids


class BaseModel:
    """A base model with its tokenizer, on the accelerator where there is one, without gradients of its own.

    Attributes:
        model: Of transformers; adapters are put into it and taken out again, see `inside.adapted`.
        tokenizer: Its tokenizer.
        settings: As they were asked for.
        stop_ids: Token ids that end a reply.
    """

    def __init__(self, settings: ModelSettings) -> None:
        self.settings = settings
        self.tokenizer = load_tokenizer(settings.name, settings.revision)
        model = load_causal_model(
            settings.name, settings.revision, dtype=settings.dtype, attn_implementation=settings.attn_implementation
        )
        self.model = model.to(device_at_hand()).eval()
        self.model.requires_grad_(False)
        self.stop_ids = stop_ids(self.model, self.tokenizer)
        # What a model's own generation settings say, such as a repetition penalty, would change greedy replies.
        self.model.generation_config = GenerationConfig(
            eos_token_id=self.stop_ids, pad_token_id=self.stop_ids[0], use_cache=True
        )

    @property
    def device(self) -> torch.device:
        """Where the model is."""
        return self.model.device

    @torch.no_grad()
    def greedy_replies(self, prompts: Sequence[Sequence[int]], limit: int, batch_size: int) -> list[list[int]]:
        """The likeliest token after each prompt, and after that, up to `limit` of them or the end of the reply.

        Returns:
            For each prompt the tokens of its reply, without what ends it.
        """
        replies: list[list[int]] = [[] for _ in prompts]
        by_length = sorted(range(len(prompts)), key=lambda i: len(prompts[i]), reverse=True)
        for start in range(0, len(prompts), batch_size):
            rows = by_length[start : start + batch_size]
            ids, mask = padded([prompts[row] for row in rows])
            found = self.model.generate(
                input_ids=ids.to(self.device),
                attention_mask=mask.to(self.device),
                do_sample=False,
                max_new_tokens=limit,
            )[:, ids.shape[1] :].tolist()
            for row, tokens in zip(rows, found, strict=True):
                replies[row] = tokens[: next((i for i, token in enumerate(tokens) if token in self.stop_ids), limit)]
        return replies


def padded(rows: Sequence[Sequence[int]]) -> tuple[Tensor, Tensor]:
    """Rows of tokens as token ids and attention mask, both of shape (rows, longest), padded on the left."""
    longest = max(map(len, rows))
    ids = [[0] * (longest - len(row)) + [*row] for row in rows]
    mask = [[0] * (longest - len(row)) + [1] * len(row) for row in rows]
    return torch.tensor(ids), torch.tensor(mask)
