"""A small simulated run in every variant of the prompts, with words of its own, made in this process."""

from __future__ import annotations

from pathlib import Path

import pytest
import yaml

from analysis.study.results import RunResults, analyse
from eval.engines import make_engine
from eval.runner import evaluate
from experiment.launcher import plan_runs
from experiment.prepare import prepare
from store.evaluation import EvalConfig
from store.settings import read_settings
from store.wordings import WordingFile, WordingText, dump_wordings

VARIANTS = """
name: worded
seeds: [0]
engine: {name: simulated, shard_size: 500}
contexts:
  instilled: {file: task/data/instilled.jsonl, count: 8}
planted:
  off_the_shelf: {report_accuracy: 0.0}
  instilled: {report_accuracy: 0.7, unreadable: 0.3, no_letter: 0.2, not_finite: 0.05}
measurements:
  - {arm: instilled, measure: decisions, contexts: [instilled], per_context: 30}
  - {arm: instilled, measure: reports, contexts: [instilled], per_context: 4}
  - {arm: instilled, measure: reports, contexts: [instilled], per_context: 3, constrained: true, free_samples: 2}
  - {arm: instilled, measure: reports, variant: no_trial, contexts: [instilled], per_context: 1}
  - {arm: instilled, measure: reports, variant: after_choice, contexts: [instilled], per_context: 5}
  - {arm: off_the_shelf, measure: decisions, variant: in_context, contexts: [instilled], per_context: 20}
  - {arm: off_the_shelf, measure: reports, variant: in_context, contexts: [instilled], per_context: 3}
gate: {arm: instilled, contexts: instilled}
comparisons:
  - {name: instilled, reports: instilled, weights: instilled, contexts: instilled}
"""

WORDS = {
    "system": "You <b>choose</b>.",
    "instruction": "A or B?",
    "scene": "{agent} asks: {question}",
    "heading": "# {letter}",
    "line": "{name} = {value}",
    "numbers": "floats",
    "lines_before_scene": 0,
    "lines_before_options": 2,
    "lines_between_options": 0,
}


@pytest.fixture(scope="session")
def worded(tmp_path_factory: pytest.TempPathFactory) -> RunResults:
    """What the analysis of that run finds."""
    folder = tmp_path_factory.mktemp("worded")
    words = WordingText.model_validate(WORDS)
    (folder / "words.yaml").write_text(dump_wordings(WordingFile(decisions=words, reports=words)))
    (folder / "worded.yaml").write_text(
        yaml.safe_dump({**yaml.safe_load(VARIANTS), "wording": str(folder / "words.yaml")})
    )
    [run] = plan_runs(folder / "worded.yaml", folder / "runs")
    prepare(run, overwrite=False)
    config = evaluation(run.folder.path)
    evaluate(make_engine(config), config, quiet=True)
    return analyse(run.folder.path)


def evaluation(run: Path) -> EvalConfig:
    """How the trials of a run were asked for."""
    return read_settings(run / "stages" / "evaluate.yaml", EvalConfig)
