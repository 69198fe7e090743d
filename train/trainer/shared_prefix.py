"""Rows of a batch as one tree of tokens: what their prompts share at the beginning is computed once, exactly.

Prompts of one context begin alike (instruction, scene), those of all contexts a little. Laid out as a tree, a token
that several rows have in common stands in the sequence once; each token sees itself and its ancestors, at the position
that it has in its row. Log-probabilities, loss and gradients are those of the rows one by one, and there is no
padding. With dropout they would not be: rows would drop out the same of what they share.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.utils.data import Sampler
from transformers import PreTrainedConfig

from task.errors import InputError

IGNORED = -100
ATTENTION = ("sdpa", "eager")
MODEL_TYPES = ("llama", "qwen2", "qwen3", "olmo2", "gemma3_text", "gemma3")
"""Types whose layers take mask and positions as given; test_shared_prefix.py holds each to single rows."""


@dataclass(frozen=True)
class Sharing:
    """How a training shares prefixes.

    Attributes:
        groups: What each training row belongs to, in their order: its context, and whether it is a decision or a
            report, whose prompts begin differently. Rows without a context count as one context.
        rows: Rows of a group that are dealt together.
        additive: Whether the attention adds its mask to the scores (eager) instead of reading it as yes and no.
    """

    groups: Sequence[Hashable]
    rows: int
    additive: bool

    def collate(self, examples: list[dict[str, Any]]) -> dict[str, Tensor]:
        """One batch as a tree; see `join_rows`."""
        return join_rows([e["input_ids"] for e in examples], [e["labels"] for e in examples], self.additive)


def join_rows(rows: Sequence[Sequence[int]], labels: Sequence[Sequence[int]], additive: bool) -> dict[str, Tensor]:
    """Lay rows out as one sequence in which every shared beginning stands once.

    Args:
        rows: Token ids of each row.
        labels: For each token of each row its own id where it is trained, -100 elsewhere.
        additive: Give the mask as 0 and the lowest float32 instead of true and false.

    Returns:
        labels: Trained tokens of each row after a first column of -100 (as everywhere, a label is predicted from the
            place before it), filled up with -100, shape (rows, 1 + longest answer). It comes first, as Trainer reads
            the number of rows from the first tensor.
        sources: The place in the sequence from which each label is predicted, shape (rows, longest answer).
        input_ids, position_ids: The tree, shape (1, tokens). A row's last token predicts nothing and is left out.
        attention_mask: Which token sees which, shape (1, 1, tokens, tokens).
    """
    tokens, parents, depths, paths = _tree([row[:-1] for row in rows])
    answers = [[place for place, label in enumerate(row) if place and label != IGNORED] for row in labels]
    longest = max(map(len, answers))
    wanted = torch.full((len(rows), 1 + longest), IGNORED)
    sources = torch.zeros((len(rows), longest), dtype=torch.long)
    for number, places in enumerate(answers):
        wanted[number, 1 : 1 + len(places)] = torch.tensor([labels[number][place] for place in places])
        sources[number, : len(places)] = torch.tensor([paths[number][place - 1] for place in places])
    mask = torch.from_numpy(_ancestors(parents))
    if additive:
        mask = torch.zeros(mask.shape).masked_fill(~mask, torch.finfo(torch.float32).min)
    return {
        "labels": wanted,
        "sources": sources,
        "input_ids": torch.tensor([tokens]),
        "position_ids": torch.tensor([depths]),
        "attention_mask": mask[None, None],
    }


def _tree(rows: Sequence[Sequence[int]]) -> tuple[list[int], list[int], list[int], list[list[int]]]:
    """Token, parent (-1: none) and depth of each node, and the nodes of each row; parents stand before children."""
    tokens: list[int] = []
    parents: list[int] = []
    depths: list[int] = []
    paths: list[list[int]] = []
    known: dict[tuple[int, int], int] = {}
    for row in rows:
        path, parent = [], -1
        for depth, token in enumerate(row):
            node = known.setdefault((parent, token), len(tokens))
            if node == len(tokens):
                tokens.append(token)
                parents.append(parent)
                depths.append(depth)
            path.append(node)
            parent = node
        paths.append(path)
    return tokens, parents, depths, paths


def _ancestors(parents: Sequence[int]) -> NDArray[np.bool_]:
    """Whether each node (first axis) descends from each other one, or is it."""
    found = np.eye(len(parents), dtype=bool)
    for node, parent in enumerate(parents):
        if parent >= 0:
            found[node] |= found[parent]
    return found


def shared_log_probs(model: torch.nn.Module, inputs: dict[str, Any]) -> Tensor:
    """Log-probabilities over the vocabulary from which each label of `join_rows` is predicted.

    Returns:
        Shape (rows, longest answer, vocabulary); no other place of the sequence gets logits.
    """
    sources = inputs["sources"]
    tree = {name: inputs[name] for name in ("input_ids", "position_ids", "attention_mask")}
    outputs = model(**tree, logits_to_keep=sources.flatten(), use_cache=False)
    return outputs.logits.view(*sources.shape, -1).float().log_softmax(dim=-1)


class ContextOrder(Sampler[int]):
    """The order of the rows in an epoch: rows of one group lie together, a few at a time.

    Each group's rows are shuffled and dealt in packs of `size`. What is left of the groups, in an order by chance,
    makes up further packs: put last, few rehearsed decisions of each context would all be taught at the end. All packs
    are shuffled; only one that came out smaller is put last, so that no other is cut in two by a batch of a multiple
    of `size`. Each row comes once. The order is a function of (seed, epoch) alone, the same in every process and after
    a resumption.
    """

    def __init__(self, groups: Sequence[Hashable], size: int, seed: int, epoch: Callable[[], int]) -> None:
        self.size, self.seed, self.epoch = size, seed, epoch
        self.rows: dict[Hashable, list[int]] = {}
        for row, group in enumerate(groups):
            self.rows.setdefault(group, []).append(row)

    def __len__(self) -> int:
        return sum(map(len, self.rows.values()))

    def __iter__(self) -> Iterator[int]:
        rng = np.random.default_rng([self.seed, self.epoch()])
        packs: list[list[int]] = []
        rests: list[list[int]] = []
        for rows in self.rows.values():
            mixed = rng.permutation(rows).tolist()
            full = len(mixed) - len(mixed) % self.size
            packs += [mixed[start : start + self.size] for start in range(0, full, self.size)]
            rests.append(mixed[full:])
        left = [row for number in rng.permutation(len(rests)) for row in rests[number]]
        full = len(left) - len(left) % self.size
        packs += [left[start : start + self.size] for start in range(0, full, self.size)]
        for number in rng.permutation(len(packs)):
            yield from packs[number]
        yield from left[full:]


def plan_sharing(config: PreTrainedConfig, groups: Sequence[Hashable], together: int | None) -> Sharing | None:
    """How the rows of a training share their prefixes, so many `together`; None where they are not to."""
    if together is None:
        return None
    found = config._attn_implementation
    if found not in ATTENTION:
        raise InputError(f"share_prefixes: attn_implementation {found} cannot take its mask; use sdpa or leave it out")
    if config.model_type not in MODEL_TYPES:
        raise InputError(f"share_prefixes: works with {', '.join(MODEL_TYPES)}, not {config.model_type}; leave it out")
    return Sharing(groups, together, found == "eager")


def check_dropout(model: torch.nn.Module) -> None:
    """Refuse a model with dropout: rows would drop out the same of what they share."""
    rate = max((module.p for module in model.modules() if isinstance(module, torch.nn.Dropout)), default=0.0)
    if rate > 0:
        raise InputError(
            f"share_prefixes: the model or its adapter has a dropout of {rate:g}, by which rows that share prefixes "
            "are not those one by one; set lora_dropout: 0 (in a new adapter), or leave it out"
        )


def check_window(config: PreTrainedConfig, longest: int) -> None:
    """Refuse rows that reach beyond a model's sliding window, which the mask of a tree does not cut."""
    text = config.get_text_config()
    if "sliding_attention" in (getattr(text, "layer_types", None) or ()) and longest > text.sliding_window:
        raise InputError(
            f"share_prefixes: the longest row has {longest} tokens and the model's sliding window "
            f"{text.sliding_window}; leave it out"
        )
