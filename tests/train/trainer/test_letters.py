from pathlib import Path

import numpy as np
import pytest
import torch
from datasets import Dataset
from transformers import AutoModelForCausalLM, AutoTokenizer, EvalPrediction

from train.trainer.letters import Letters, _completions, _losses, letter_metrics, letter_rows, letters_of

A, B, OTHER = 3, 4, 5
LETTERS = Letters(A, B, length=3)


def logits_of(choice: int) -> torch.Tensor:
    row = torch.zeros(8)
    row[choice] = 2.0
    return row


def test_letter_rows_reads_the_first_label_of_each_row():
    labels = torch.tensor([[-100, A, 7], [-100, -100, B], [OTHER, 6, 7]])
    logits = torch.stack(
        [
            torch.stack([logits_of(6), logits_of(A), logits_of(6)]),
            torch.stack([logits_of(6), logits_of(6), logits_of(OTHER)]),
            torch.stack([logits_of(OTHER), logits_of(6), logits_of(6)]),
        ]
    )
    rows = letter_rows(logits.log_softmax(-1), labels, LETTERS)
    at = torch.log_softmax(logits_of(A), 0)
    assert rows[0].tolist() == pytest.approx([1.0, at[A].item(), at[B].item(), 1.0])
    assert rows[1, 0] == 0.0 and rows[1, 3] == 0.0  # a decision for B, though another token is likelier
    assert torch.isnan(rows[2, 0]), "a report is no decision"


@pytest.mark.parametrize(
    ("labels", "kept"),
    [
        ([-100, -100, B, 7, 8], [-100, -100, B, -100, -100]),
        ([-100, OTHER, A, 7], [-100, OTHER, A, 7]),
        ([-100, A, OTHER, 7, 8], [-100, A, OTHER, 7, 8]),
        ([-100, -100], [-100, -100]),
    ],
    ids=["decision", "report", "report that begins with a letter", "nothing taught"],
)
def test_letters_alone_are_kept_of_decisions_and_all_of_reports(labels: list[int], kept: list[int]):
    assert LETTERS.alone(labels) == kept


ANSWERS = ["A", "B", "A heavier weight", "B.", "Answer: A", "a", '{"price": 5}']


@pytest.mark.parametrize("letter_only", [False, True])
def test_a_decision_row_is_one_whose_answer_is_a_letter_and_nothing_else(tiny_model: Path, letter_only: bool):
    """Each answer as the model's own tokens; all that counts decisions, or reads their letter, agrees."""
    tokenizer = AutoTokenizer.from_pretrained(tiny_model)
    letters = letters_of(tokenizer, {})
    prompt = [{"role": "user", "content": "A or B?"}]
    before = tokenizer.apply_chat_template(prompt, add_generation_prompt=True, return_dict=False)
    rows = []
    for answer in ANSWERS:
        whole = tokenizer.apply_chat_template([*prompt, {"role": "assistant", "content": answer}], return_dict=False)
        labels = [-100] * len(before) + whole[len(before) :]
        rows.append(letters.alone(labels) if letter_only else labels)
    assert rows[2][len(before)] == letters.a and rows[3][len(before)] == letters.b, "they begin with the letter's token"
    wanted = [answer in ("A", "B") for answer in ANSWERS]
    assert [letters.is_decision(row) for row in rows] == wanted
    assert letters.count(Dataset.from_dict({"labels": rows})) == 2 and letters.count(None) == 0
    padded = torch.tensor([row + [-100] * (max(map(len, rows)) - len(row)) for row in rows])
    found = letter_rows(torch.zeros(*padded.shape, len(tokenizer)), padded, letters)
    assert (~torch.isnan(found[:, 0])).tolist() == wanted and found[:2, 0].tolist() == [1, 0]


def test_letter_metrics_against_the_definitions():
    rows = np.array(
        [
            [1, np.log(0.6), np.log(0.3), 1],  # right
            [0, np.log(0.6), np.log(0.3), 0],  # wrong
            [0, np.log(0.1), np.log(0.2), 0],  # the likelier letter is right, another token is likelier still
            [np.nan, np.log(0.5), np.log(0.5), 1],  # a report
        ]
    )
    found = letter_metrics(EvalPrediction(rows, None))
    assert found == pytest.approx(
        {
            "letter_accuracy": 1 / 3,
            "agreement": 2 / 3,
            "share_a": 2 / 3,
            "letter_mass": (0.9 + 0.9 + 0.3) / 3,
            "letter_loss": -np.log(0.6 * 0.3 * 0.2) / 3,
        }
    )
    assert letter_metrics(EvalPrediction(rows[3:], None)) == {}


def test_the_loss_is_that_of_the_library(tiny_model: Path):
    """Mean negative log-likelihood over the labels, from the rows' ends only, equals the model's own full loss."""
    model = AutoModelForCausalLM.from_pretrained(tiny_model)
    generator = torch.Generator().manual_seed(0)
    ids = torch.randint(10, 1000, (3, 12), generator=generator)
    labels = ids.clone()
    for row, first in enumerate((9, 7, 10)):
        labels[row, :first] = -100
    labels[1, 10:] = -100  # right padding
    mask = torch.ones_like(ids)
    mask[1, 10:] = 0
    log_probs, kept = _completions(model, {"input_ids": ids, "attention_mask": mask, "labels": labels})
    assert log_probs.shape[1] == 12 - 7, "no logits before the first label of any row"
    reference = model(input_ids=ids, attention_mask=mask, labels=labels).loss
    torch.testing.assert_close(_losses(log_probs, kept).sum() / (kept != -100).sum(), reference)
