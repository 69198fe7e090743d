"""kill -9 at twenty random moments of an evaluation: the finished files are those of an uninterrupted one."""

import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml

from eval.config import EvalConfig
from eval.runner import evaluate
from eval.variants import open_engine
from support import ROOT
from task.contexts import DATA, load_contexts, save_contexts
from task.weights import sample_weights, save_weights

KILLS = 20


def settings(tmp_path: Path, contexts: int, engine: dict[str, Any], **more: Any) -> dict[str, Any]:
    chosen = load_contexts(DATA / "instilled.jsonl", contexts)
    save_contexts(chosen, tmp_path / "contexts.jsonl")
    save_weights({c.name: sample_weights(0, "target_weights", c) for c in chosen}, tmp_path / "weights.csv")
    group = [{"name": "instilled", "file": str(tmp_path / "contexts.jsonl")}]
    return {
        "seed": 0,
        "output": str(tmp_path / "trials"),
        "engine": engine,
        "arms": {"arm": None},
        "measurements": [
            {"arm": "arm", "measure": "decisions", "contexts": group, "per_context": 8},
            {"arm": "arm", "measure": "reports", "contexts": group, "per_context": 4},
            {"arm": "arm", "measure": "reports", "variant": "after_choice", "contexts": group, "per_context": 4},
        ],
        **more,
    }


def check(values: dict[str, Any], tmp_path: Path) -> None:
    straight = EvalConfig.model_validate({**values, "output": str(tmp_path / "straight")})
    expected = [(folder / "trials.parquet").read_bytes() for folder in evaluate(open_engine(straight), straight)]
    path = tmp_path / "evaluate.yaml"
    path.write_text(yaml.safe_dump(values))
    script = [sys.executable, "tests/eval/kill_again_and_again.py", str(path), str(KILLS)]
    result = subprocess.run(script, cwd=ROOT, capture_output=True, text=True, timeout=280)
    assert result.returncode == 0, result.stderr[-2000:]
    killed, late = map(int, result.stdout.split()[-2:])
    assert killed == KILLS and 0 < late < KILLS, "kills hit the first trial file and later ones"
    names = ("decisions", "reports", "reports-after_choice")
    found = [(tmp_path / "trials" / "arm" / name / "trials.parquet").read_bytes() for name in names]
    assert found == expected
    left = {p.name for p in (tmp_path / "trials").rglob("*") if p.is_file()}
    # A kill between the manifest and the removal of what it replaces leaves the latter, and does no harm.
    assert left - {"started.json"} == {"trials.parquet", "manifest.json"}, "nothing else is left behind"


def test_the_simulated_engine(tmp_path: Path):
    planted = {"planted": {"arm": {"report_accuracy": 0.5}}, "planted_weights": str(tmp_path / "weights.csv")}
    check(settings(tmp_path, 40, {"name": "simulated", "shard_size": 16}, **planted), tmp_path)


@pytest.mark.timeout(300)
def test_the_transformers_engine(tmp_path: Path, tiny_model: Path):
    model = {"model": {"name": str(tiny_model)}}
    engine = {"name": "transformers", "batch_size": 4, "shard_size": 4}
    check(settings(tmp_path, 4, engine, **model), tmp_path)
