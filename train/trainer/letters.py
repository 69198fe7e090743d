"""SFT that watches the one token that matters: the letter of a decision."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from datasets import Dataset
from torch import Tensor
from torch.utils.data import Sampler
from transformers import EvalPrediction
from trl import SFTTrainer

from task.chat import ChatTokenizer, letter_answers
from train.trainer.shared_prefix import IGNORED, ContextOrder, Sharing, shared_log_probs


@dataclass(frozen=True)
class Letters:
    """Token ids of the answers A and B, and the tokens of a whole answer: the letter and what ends it."""

    a: int
    b: int
    length: int

    def is_decision(self, labels: Sequence[int]) -> bool:
        """Whether a row with these labels is a decision: it is taught a letter, and nothing else but the end."""
        taught = [label for label in labels if label != IGNORED]
        return bool(taught) and taught[0] in (self.a, self.b) and len(taught) <= self.length

    def alone(self, labels: Sequence[int]) -> list[int]:
        """The labels of a row without those after the letter, if it is a decision; a report's stay as they are."""
        if not self.is_decision(labels):
            return list(labels)
        first = next(place for place, label in enumerate(labels) if label != IGNORED)
        return [label if place <= first else IGNORED for place, label in enumerate(labels)]

    def count(self, rows: Dataset | None) -> int:
        """How many of tokenised rows are decisions."""
        return sum(self.is_decision(labels) for labels in rows["labels"]) if rows else 0


def letters_of(tokenizer: ChatTokenizer, template: Mapping[str, Any]) -> Letters:
    """The letters as they stand after a prompt; raises `InputError` as `letter_answers` does."""
    a, b = letter_answers(tokenizer, template)
    return Letters(a[0], b[0], len(a))


class LetterTrainer(SFTTrainer):
    """TRL's SFT trainer that reads log P(A) and log P(B) where the answer's letter stands.

    `mean_token_accuracy` covers letter, end of turn and newline alike, and looks healthy while the letter is not
    learned; see `letter_metrics` for what is logged instead. The loss is TRL's (mean negative log-likelihood of
    the completion's tokens), computed from the logits of the rows' ends only: TRL's own head scores every position of
    the prompt too where there is no Triton, which made a step of a two-layer model on a CPU 20 times slower.

    With `sharing`, the rows of a batch are one tree of tokens, and those of a context and measure are dealt together
    (`train.trainer.shared_prefix`); loss and metrics are computed as without.
    """

    def __init__(self, *args: Any, letters: Letters, sharing: Sharing | None = None, **kwargs: Any) -> None:
        self.letters, self.sharing = letters, sharing
        if sharing:
            kwargs["data_collator"] = sharing.collate
        super().__init__(*args, compute_metrics=held_out_metrics, **kwargs)

    def _get_train_sampler(self, train_dataset: Any = None) -> Sampler[int] | None:
        if self.sharing is None:
            return super()._get_train_sampler(train_dataset)
        # The epoch is asked for when it begins: a resumed one is not announced to the sampler of several processes.
        return ContextOrder(self.sharing.groups, self.sharing.rows, self.args.seed, lambda: int(self.state.epoch or 0))

    def compute_loss(
        self, model: torch.nn.Module, inputs: dict[str, Any], num_items_in_batch: Tensor | int | None = None, **_: Any
    ) -> Tensor:
        """Mean negative log-likelihood of the labels; logs the letter metrics of this process's training rows."""
        log_probs, labels = _completions(model, inputs)
        losses = _losses(log_probs, labels)
        if num_items_in_batch is None:
            loss = losses.sum() / (labels != IGNORED).sum()
        else:
            # The count covers all micro-batches of all processes, and DDP then averages over processes.
            scale = self.accelerator.num_processes if self.args.average_tokens_across_devices else 1
            loss = losses.sum() / num_items_in_batch * scale
        rows = letter_rows(log_probs.detach(), labels, self.letters)
        for name, value in letter_metrics(EvalPrediction(rows.cpu().numpy(), None)).items():
            self._metrics["train"][name].append(value)
        return loss

    def prediction_step(self, model: Any, inputs: dict[str, Any], *_: Any, **__: Any) -> tuple[None, Tensor, Tensor]:
        """What `held_out_metrics` reads of each row, and its number of labels, from one forward pass.

        There is no loss of the batch: Trainer's mean over batches depends on how many rows the last one has, and so on
        the number of processes.
        """
        inputs = self._prepare_inputs(inputs)
        with torch.no_grad(), self.compute_loss_context_manager():
            log_probs, labels = _completions(model, inputs)
        counts = (labels != IGNORED).sum(dim=1)
        sums = torch.stack([_losses(log_probs, labels).sum(dim=1), counts.float()], dim=1)
        return None, torch.cat([letter_rows(log_probs, labels, self.letters), sums], dim=1), counts


def held_out_metrics(prediction: EvalPrediction) -> dict[str, float]:
    """Metrics of held-out rows, whatever batches and processes they were shared by.

    loss: mean negative log-likelihood of all labels of all rows, each label counted once;
    and those of `letter_metrics`, which has the first four of six columns: the last two are a row's summed negative
    log-likelihood and its number of labels.
    """
    rows = np.asarray(prediction.predictions, dtype=float).reshape(-1, 6)
    loss = float(rows[:, 4].sum() / rows[:, 5].sum())
    return {"loss": loss, **letter_metrics(EvalPrediction(rows[:, :4], None))}


def _completions(model: torch.nn.Module, inputs: dict[str, Any]) -> tuple[Tensor, Tensor]:
    """Log-probabilities and labels of the ends of the rows, from the first label of any row on.

    Returns:
        Shapes (rows, positions, vocabulary) and (rows, positions); the prompts, which have no labels, need no logits.
    """
    labels = inputs["labels"]
    if "sources" in inputs:
        return shared_log_probs(model, inputs), labels[:, 1:]
    keep = int(labels.shape[1] - (labels != IGNORED).int().argmax(dim=1).min()) + 1
    texts = {name: inputs[name] for name in ("input_ids", "attention_mask")}
    outputs = model(**texts, logits_to_keep=keep, use_cache=False)
    return outputs.logits[:, :-1].float().log_softmax(dim=-1), labels[:, 1 - keep :]


def _losses(log_probs: Tensor, labels: Tensor) -> Tensor:
    """Negative log-likelihood of each label, 0 where there is none, shape (rows, positions)."""
    trained = labels != IGNORED
    return -log_probs.gather(2, labels.where(trained, 0).unsqueeze(2)).squeeze(2) * trained


def letter_rows(log_probs: Tensor, labels: Tensor, letters: Letters) -> Tensor:
    """What each row says at its first trained position, by `log_probs` and `labels` as `_completions` gives them.

    Returns:
        Shape (rows, 4): 1 if the label is A, 0 if B, NaN if the row is no decision; log P(A); log P(B); whether the
        label is the most likely token of all.
    """
    rows = torch.arange(len(labels), device=labels.device)
    first = (labels != IGNORED).int().argmax(dim=1)
    label = labels[rows, first]
    at_letter = log_probs[rows, first]
    decided = torch.tensor([letters.is_decision(row) for row in labels.tolist()], device=labels.device)
    is_a = torch.where(decided, (label == letters.a).float(), torch.nan)
    top = (at_letter.argmax(dim=-1) == label).float()
    return torch.stack([is_a, at_letter[:, letters.a], at_letter[:, letters.b], top], dim=1)


def letter_metrics(prediction: EvalPrediction) -> dict[str, float]:
    """Metrics of held-out decisions, from the rows of `letter_rows`; none for a set of reports.

    letter_accuracy: share of rows whose most likely token, of all, is the right letter;
    agreement: share whose likelier letter of the two is the right one;
    share_a: share whose likelier letter is A (.5 in balanced trials; near 0 or 1 the model has collapsed);
    letter_mass: mean P(A) + P(B), how far the model answers with a letter at all;
    letter_loss: mean negative log-likelihood of the right letter (ln 2 for one that does not know).
    """
    rows = np.asarray(prediction.predictions, dtype=float).reshape(-1, 4)
    rows = rows[~np.isnan(rows[:, 0])]
    if not len(rows):
        return {}
    is_a, says_a = rows[:, 0] == 1, rows[:, 1] > rows[:, 2]
    return {
        "letter_accuracy": float(rows[:, 3].mean()),
        "agreement": float((says_a == is_a).mean()),
        "share_a": float(says_a.mean()),
        "letter_mass": float(np.exp(rows[:, 1:3]).sum(axis=1).mean()),
        "letter_loss": float(-np.where(is_a, rows[:, 1], rows[:, 2]).mean()),
    }
