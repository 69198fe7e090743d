"""kill -9 at twenty random moments of an evaluation: the finished files are those of an uninterrupted one."""

import importlib.util
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml

from store.contexts import DATA, load_contexts, save_contexts
from store.weights import save_weights
from support import ROOT, make_tiny_model
from task.weights import sample_weights

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


def run(*command: str) -> str:
    result = subprocess.run([sys.executable, *command], cwd=ROOT, capture_output=True, text=True)
    assert result.returncode == 0, result.stderr[-2000:]
    return result.stdout


def check(values: dict[str, Any], tmp_path: Path, kills: int = KILLS) -> None:
    paths = {name: tmp_path / f"{name}.yaml" for name in ("straight", "trials")}
    for name, path in paths.items():
        path.write_text(yaml.safe_dump({**values, "output": str(tmp_path / name)}))
    run("-m", "eval.run", "--config", str(paths["straight"]), "--quiet")
    killed, late = map(int, run("tests/eval/kill_again_and_again.py", str(paths["trials"]), str(kills)).split()[-2:])
    assert killed == kills and 0 < late < kills, "kills hit the first trial file and later ones"
    for name in ("decisions", "reports", "reports-after_choice"):
        straight, found = (tmp_path / n / "arm" / name / "trials.parquet" for n in paths)
        assert found.read_bytes() == straight.read_bytes()
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


@pytest.mark.timeout(300)
@pytest.mark.skipif(importlib.util.find_spec("vllm") is None, reason="vLLM is not installed; see requirements-test.txt")
def test_the_vllm_engine(tmp_path: Path):
    """Few kills, since it starts slowly; `VLLM_KILLS=20` for more."""
    model = make_tiny_model(tmp_path / "model", seed=0, hidden_size=64)  # vLLM asks for heads of 32 or more
    lengths = {"max_prompt_tokens": 400, "max_reply_tokens": 200}
    engine = {"name": "vllm", "shard_size": 4, **lengths}
    check(settings(tmp_path, 4, engine, model={"name": str(model)}), tmp_path, int(os.environ.get("VLLM_KILLS", "4")))
