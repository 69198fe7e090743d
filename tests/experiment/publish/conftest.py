"""A small simulated run, made in this process, and the same run with adapters."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import save_file

from analysis.run import write_analysis
from eval.engines import make_engine
from eval.runner import evaluate
from experiment.launcher import plan_runs
from experiment.prepare import prepare
from store.evaluation import EvalConfig
from store.manifests import BaseModelRecord, DerivedFacts, ExampleFacts, Facts, TrainingFacts
from store.model_file import ModelFile
from store.run import RunFolder, RunRecord, read_run, write_run
from store.settings import read_settings
from store.stages import Stage

EXPERIMENT = """
name: small
seeds: [0]
engine: {name: simulated}
contexts:
  instilled: {file: task/data/instilled.jsonl, count: 8}
  native: {file: task/data/native.jsonl, count: 3}
planted:
  off_the_shelf: {no_letter: 0.05}
  instilled: {report_accuracy: 0.5, unreadable: 0.2}
measurements:
  - {arm: off_the_shelf, measure: reports, contexts: instilled, per_context: 4}
  - {arm: off_the_shelf, measure: reports, constrained: true, contexts: instilled, per_context: 2}
  - {arm: off_the_shelf, measure: decisions, contexts: instilled, per_context: 20}
  - {arm: instilled, measure: decisions, contexts: [instilled, native], per_context: 40}
  - {arm: instilled, measure: reports, contexts: [instilled, native], per_context: 4}
gate: {arm: instilled, contexts: instilled}
comparisons:
  - {name: instilled, reports: instilled, weights: instilled, contexts: instilled}
"""

BASE = BaseModelRecord(name="models/organism", revision=None, fingerprint="v2-feedbeef")


@pytest.fixture(scope="package")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A finished run with its analysis; not to be changed."""
    folder = tmp_path_factory.mktemp("runs")
    (folder / "small.yaml").write_text(EXPERIMENT)
    [run] = plan_runs(folder / "small.yaml", folder)
    prepare(run, False)
    config = read_settings(run.folder.stage_config("evaluate"), EvalConfig)
    assert list(evaluate(make_engine(config), config, quiet=True))
    write_analysis(run.folder.path)
    return run.folder.path


@pytest.fixture
def run(made: Path, tmp_path: Path) -> RunFolder:
    """A copy of the run."""
    return RunFolder(Path(shutil.copytree(made, tmp_path / made.name)))


@pytest.fixture
def trained(run: RunFolder) -> RunFolder:
    """The run as if a model had answered: one arm was trained, and one is half of it."""
    values = read_run(run.path).model_dump(mode="json")
    values["model"] = ModelFile(name="models/organism", licence="apache-2.0").model_dump(mode="json")
    values["arms"]["instilled"] = {"training": "instilled", "teach": "decisions", "labels": "target"}
    values["arms"]["dose_half"] = {"derived": {"instilled": [{"weight": 0.5, "layers": "first 2"}]}}
    write_run(run.path, RunRecord.model_validate(values))
    counts = ExampleFacts(train=5, validation=1)
    add_adapter(run, "instilled", TrainingFacts(base=BASE, counts=counts, steps=3, metrics={}))
    (run.adapter("instilled") / "README.md").write_text("---\nlibrary_name: peft\n---\n# LoRA adapter of organism\n")
    add_adapter(run, "dose_half", DerivedFacts(base=BASE, rank=2, matrices=4, changed=3))
    return run


def add_adapter(run: RunFolder, arm: str, facts: Facts) -> None:
    """An adapter with its manifest, and what lies beside an adapter and is nobody else's business."""
    stage = Stage(run.adapter(arm), {"base": BASE.fingerprint}, settings={"output_dir": str(run.adapter(arm))})
    config = {"peft_type": "LORA", "r": 2, "lora_alpha": 4, "target_modules": ["q_proj"]}
    config["base_model_name_or_path"] = str(run.path / "models" / "organism")
    (stage.folder / "adapter_config.json").write_text(json.dumps(config))
    save_file({"base_model.model.q_proj.lora_A.weight": np.ones((2, 3))}, stage.folder / "adapter_model.safetensors")
    (stage.folder / "log_history.json").write_text("[]")
    stage.finish(facts)
