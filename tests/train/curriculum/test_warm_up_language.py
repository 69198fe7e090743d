"""What a warm-up did to a model: perplexity by its definition, what counts as prose, and both models' figures."""

from __future__ import annotations

import json
import math
from collections import Counter
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch

from store.contexts import DATA, load_contexts
from store.pretrained import load_causal_model
from task.errors import InputError
from train.curriculum import language
from train.curriculum.language import FIGURES, REPLIES, Measured, measure_both, paragraphs, perplexity, plain_text
from train.curriculum.own_words import TEXTS

PROSE = "A paragraph of prose begins with a letter and is neither short nor long. " * 4


def test_perplexity_is_that_of_one_token_after_another(tiny_model: Path):
    model = load_causal_model(tiny_model, dtype=torch.float32).eval().requires_grad_(False)
    rows = [([5, 6, 7], [8, 9]), ([10], [11, 12, 13])]
    logs = []
    for before, after in rows:
        for place, token in enumerate(after):
            logits = model(torch.tensor([[*before, *after[:place]]])).logits[0, -1].double()
            logs.append(float(logits[token] - logits.logsumexp(0)))
    found = perplexity(model, rows)
    assert found["perplexity"] == pytest.approx(math.exp(-sum(logs) / 5), rel=1e-4)
    assert (found["texts"], found["tokens"]) == (2, 5)


def test_prose_is_told_from_the_rest():
    lines = PROSE.replace(". ", ".\n")
    code = f"```bash\n{PROSE}\n\n{PROSE}\n```"
    blocks = ["# Title", lines, f"- {PROSE}", code, f"{PROSE} | {PROSE}", "Too short.", PROSE * 9]
    assert paragraphs("\n\n".join(blocks)) == [PROSE.strip()]


@pytest.fixture
def arguments(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> SimpleNamespace:
    """Two spare contexts besides the one that a warm-up had, and one of each of the rest."""
    for name, few in (("TREES", 1), ("PROBES", 2), ("REPORTS", 1), ("REPORT_TOKENS", 4), ("ATTRIBUTES", (1, 5))):
        monkeypatch.setattr(language, name, few)
    monkeypatch.setattr(language, "load_contexts", lambda _: load_contexts(DATA / "spare.jsonl", 4))
    said = [{"role": "user", "content": "Is it late?"}, {"role": "assistant", "content": "It is ten to nine."}]
    (tmp_path / TEXTS).write_text(json.dumps({"messages": said, "whole": True}))
    (tmp_path / "plain.md").write_text(PROSE)
    return SimpleNamespace(own_words=tmp_path, output=tmp_path, contexts=2, layout="side_by_side", ratings=True, seed=0)


def test_both_models_are_measured_and_a_part_is_measured_once(
    arguments: SimpleNamespace, tiny_model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    bases = {"before": tiny_model, "after": tiny_model}
    plain = [tmp_path / "plain.md"]
    measure_both(bases, arguments, plain)
    figures: dict[str, Any] = json.loads((tmp_path / FIGURES).read_text())
    assert figures["before"] == figures["after"]
    assert figures["after"]["free_reports"]["reports"] == 2
    assert figures["after"]["decisions"]["own"]["5"]["decisions"] == 16
    assert {*figures["after"]["probes"]} == {"1", "5"}
    replies = [json.loads(line) for line in (tmp_path / REPLIES["after"]).read_text().splitlines()]
    assert Counter(row["reason"] for row in replies) == figures["after"]["free_reports"]["unreadable"]
    assert {row["context"] for row in replies} == {c.name for c in load_contexts(DATA / "spare.jsonl", 4)[2:]}
    assert all(isinstance(row["reply"], str) for row in replies)
    del figures["after"]["plain_text"]
    figures["before"]["plain_text"]["perplexity"] *= 2
    (tmp_path / FIGURES).write_text(json.dumps(figures))
    again = {name: (lambda _, n=name: pytest.fail(n)) for name in language.PARTS} | {"plain_text": plain_text}
    monkeypatch.setattr(language, "PARTS", again)
    measure_both(bases, arguments, plain)
    figures = json.loads((tmp_path / FIGURES).read_text())
    assert "(-50.0%)" in language.lines(figures)[1]
    assert len(language.lines(figures)) == 2 + 1 + 2 + 3


def test_files_without_prose_are_refused(arguments: SimpleNamespace, tiny_model: Path, tmp_path: Path):
    (tmp_path / "plain.md").write_text("# Title\n")
    with pytest.raises(InputError, match="no paragraph of 200 to 800 characters; name other files"):
        plain_text(Measured(tiny_model, arguments, [tmp_path / "plain.md"], tmp_path / "replies.jsonl"))
