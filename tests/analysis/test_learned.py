"""Weights measured before a training, as labels: those that the decisions follow, and none where they follow none."""

import sys
from pathlib import Path

import numpy as np
import pytest

from analysis.learned import learn
from analysis.learned import main as learned_main
from analysis.study.results import analyse
from store.console import run_command
from store.contexts import load_contexts
from store.learned import LearnedConfig
from store.run import RunFolder
from store.weights import load_weights
from store.yaml_files import dump_yaml
from task.errors import InputError


@pytest.fixture
def config(simulated_run: Path, tmp_path: Path) -> LearnedConfig:
    run = RunFolder(simulated_run)
    return LearnedConfig(
        trials=str(run.trials_of("instilled", "decisions", "plain")),
        context_files=[str(run.contexts_file(group)) for group in ("instilled", "native")],
        only=[c.name for c in load_contexts(run.contexts_file("instilled"))],
        seed=0,
        output=str(tmp_path / "learned"),
    )


def test_they_are_the_weights_that_the_analysis_finds(config: LearnedConfig, simulated_run: Path):
    facts = learn(config)
    found, measured = load_weights(config.weights), analyse(simulated_run).measured["instilled"]
    expected = dict(zip(measured.contexts, measured.weights, strict=True))
    targets = load_weights(RunFolder(simulated_run).target_weights)
    assert facts.contexts == len(found) == 12 and facts.undetermined == []
    for name, row in found.items():
        assert np.abs(row - expected[name]).max() <= 0.5, "rounded"
    pairs = [np.concatenate([side[name] for name in found]) for side in (found, targets)]
    assert np.corrcoef(*pairs)[0, 1] > 0.9, "and those are the planted ones"


def test_a_context_that_was_not_decided_on_has_none_and_is_named(config: LearnedConfig, tmp_path: Path):
    facts = learn(config.model_copy(update={"only": [*config.only, "elsewhere"]}))
    assert facts.undetermined == ["elsewhere"] and "elsewhere" not in load_weights(config.weights)
    with pytest.raises(InputError, match="determine the weights of none of 1 contexts"):
        learn(config.model_copy(update={"only": ["elsewhere"], "output": str(tmp_path / "none")}))


def test_the_command_is_done_once(config: LearnedConfig, tmp_path: Path, monkeypatch, capsys):
    (tmp_path / "learned.yaml").write_text(dump_yaml(config.model_dump()))
    monkeypatch.setattr(sys, "argv", ["learned", "--config", str(tmp_path / "learned.yaml")])
    run_command(learned_main)
    assert "weights of 12 contexts" in capsys.readouterr().out
    before = config.weights.stat().st_mtime_ns
    run_command(learned_main)
    assert config.weights.stat().st_mtime_ns == before
