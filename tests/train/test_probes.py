"""Asking a model the probes: a rigged model's skills are found, whatever letter it likes."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from transformers import AutoModelForCausalLM, AutoTokenizer

from store.contexts import DATA, load_contexts
from support import ROOT, SMALL_MODEL
from task.chat import letter_ids, prompt_ids
from task.errors import InputError
from task.probes import SKILLS, Probe
from train.probes import all_probes, ask, lines, read_template, shortened

CONTEXTS = load_contexts(DATA / "spare.jsonl", 5)


class Rigged:
    """Answers right with these skills and at random otherwise, and likes A by far more than it knows."""

    device = torch.device("cpu")

    def __init__(self, tokenizer: Any, probes: list[Probe], skills: set[str]) -> None:
        self.letters = letter_ids(tokenizer, {})
        self.vocabulary = max(self.letters) + 1
        self.answers = {}
        noise = torch.Generator().manual_seed(0)
        for probe in probes:
            for prompt, first_is_a in zip(probe.prompts, (True, False), strict=True):
                knows = 1.0 if probe.first_is_right == first_is_a else -1.0
                if probe.skill not in skills:
                    knows = float(torch.randn((), generator=noise))
                self.answers[tuple(prompt_ids(tokenizer, prompt, {}))] = knows

    def __call__(self, ids: torch.Tensor, use_cache: bool) -> SimpleNamespace:
        logits = torch.zeros(*ids.shape, self.vocabulary)
        for row, tokens in enumerate(ids.tolist()):
            for prompt, knows in self.answers.items():
                if tuple(tokens[: len(prompt)]) == prompt:
                    logits[row, len(prompt) - 1, self.letters[0]] = 20 + knows
        return SimpleNamespace(logits=logits)


@pytest.mark.parametrize("skills", [set(), {"reading"}, {"reading", "comparing"}, set(SKILLS)])
def test_finds_the_skills_of_a_model_that_always_says_a(skills: set[str]):
    tokenizer = AutoTokenizer.from_pretrained(SMALL_MODEL)
    probes = all_probes(CONTEXTS, 40, seed=0)
    shares = ask(Rigged(tokenizer, probes, skills), tokenizer, {}, probes)
    for skill in SKILLS:
        assert shares[skill] == 1.0 if skill in skills else 0.2 < shares[skill] < 0.8
    said = lines(shares, 40)[-1]
    missing = [skill for skill in SKILLS if skill not in skills]
    assert said.startswith(f"missing: {missing[0]};" if missing else "all three skills")


def test_padding_does_not_change_an_answer(tiny_model: Path):
    tokenizer = AutoTokenizer.from_pretrained(tiny_model)
    model = AutoModelForCausalLM.from_pretrained(tiny_model).eval()
    probes = all_probes(CONTEXTS, 6, seed=0)
    assert ask(model, tokenizer, {}, probes, rows=1) == ask(model, tokenizer, {}, probes, rows=16)


def test_the_command_names_what_is_missing_and_refuses_too_many_attributes(tiny_model: Path):
    command = [sys.executable, "-m", "train.probes", "--model", str(tiny_model), "--probes", "12"]
    result = subprocess.run([*command, "--attributes", "1"], cwd=ROOT, capture_output=True, text=True)
    assert result.returncode == 0, result.stderr
    assert [line.split()[0] for line in result.stdout.splitlines() if "chance .50" in line] == list(SKILLS)
    refused = subprocess.run([*command, "--attributes", "9"], cwd=ROOT, capture_output=True, text=True)
    assert refused.returncode == 2
    assert "--attributes 9" in refused.stderr


def test_a_shortened_context_keeps_its_first_attributes():
    short = shortened(CONTEXTS[0], 2, "side_by_side")
    assert short.attribute_names == CONTEXTS[0].attribute_names[:2]
    assert short.layout == "side_by_side"


def test_the_template_of_the_command_is_an_object_of_json():
    assert read_template('{"enable_thinking": false}') == {"enable_thinking": False}
    for text in ("5", "[]", "{", '{"a": 1, "a": 2}', '{"a": NaN}'):
        with pytest.raises(InputError, match=r"^--template.*; give an object"):
            read_template(text)
