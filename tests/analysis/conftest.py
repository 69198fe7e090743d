"""A small simulated run, made by the real command, and variants of what its analysis finds."""

from __future__ import annotations

import dataclasses
import os
import subprocess
import sys
from pathlib import Path

import pytest

from analysis.study.gate import judge
from analysis.study.results import RunResults, analyse
from support import ROOT, made_once

EXPERIMENT = """
name: small
seeds: [0]
engine: {name: simulated, shard_size: 500}
contexts:
  instilled: {file: task/data/instilled.jsonl, count: 12}
  native: {file: task/data/native.jsonl, count: 6}
planted:
  off_the_shelf: {report_accuracy: 0.0}
  instilled: {report_accuracy: 0.5, unreadable: 0.2}
  introspection: {report_accuracy: 0.8}
measurements:
  - {arm: off_the_shelf, measure: reports, contexts: instilled, per_context: 5}
  - {arm: instilled, measure: decisions, contexts: [instilled, native], per_context: 40}
  - {arm: instilled, measure: reports, contexts: [instilled, native], per_context: 5}
  - {arm: introspection, measure: reports, contexts: instilled, per_context: 5}
gate: {arm: instilled, contexts: instilled}
comparisons:
  - {name: off_the_shelf, reports: off_the_shelf, weights: instilled, contexts: instilled}
  - {name: instilled, reports: instilled, weights: instilled, contexts: instilled}
  - {name: introspection_trained, reports: introspection, weights: instilled, contexts: instilled}
  - {name: native_before, reports: instilled, weights: instilled, contexts: native}
differences:
  - {name: gain, before: instilled, after: introspection_trained}
"""


@pytest.fixture(scope="session")
def simulated_run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A finished run with its analysis."""
    return made_once(tmp_path_factory, "simulated", run_small) / "small-seed0"


def run_small(folder: Path) -> None:
    (folder / "small.yaml").write_text(EXPERIMENT)
    command = [sys.executable, "scripts/run_experiment.py", str(folder / "small.yaml"), "--runs", str(folder)]
    environment = {**os.environ, "WANDB_MODE": "disabled"}
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, env=environment)
    assert done.returncode == 0, done.stdout + done.stderr


@pytest.fixture(scope="session")
def passed(simulated_run: Path) -> RunResults:
    """What the analysis of that run finds; the gate is passed."""
    results = analyse(simulated_run)
    assert results.gate.passed
    return results


@pytest.fixture(scope="session")
def failed(passed: RunResults) -> RunResults:
    """The same comparisons, of a run whose arm has not learned its weights and gives one letter in most contexts."""
    key = ("instilled", "instilled")
    weak = dataclasses.replace(
        passed.decisions[key], agreement=0.62, agreement_low=0.55, agreement_high=0.7, share_a=0.97
    )
    learned = dataclasses.replace(passed.learned_vs_target.agreement, r=0.31, boot_low=0.1, boot_high=0.5)
    check = dataclasses.replace(passed.learned_vs_target, agreement=learned)
    decisions = {**passed.decisions, key: weak}
    return dataclasses.replace(passed, gate=judge(weak, learned), decisions=decisions, learned_vs_target=check)
