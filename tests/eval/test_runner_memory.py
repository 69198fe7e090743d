"""Memory of an evaluation does not grow with the number of its trials."""

import subprocess
import sys
from pathlib import Path

import pyarrow.parquet as pq
import yaml

from store.contexts import DATA, load_contexts, save_contexts
from store.weights import save_weights
from support import ROOT
from task.weights import sample_weights

# A small process in between: a process inherits the peak of the one that started it, and this one is large.
MEASURE = (
    "import resource, subprocess, sys; subprocess.run(sys.argv[1:], check=True); "
    "print(resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss)"
)


def peak(tmp_path: Path, trials: int) -> float:
    """Peak resident memory, in MB, of evaluating so many trials; half of them decisions, half reports."""
    contexts = load_contexts(DATA / "instilled.jsonl", 50)
    save_contexts(contexts, tmp_path / "contexts.jsonl")
    save_weights({c.name: sample_weights(0, "target_weights", c) for c in contexts}, tmp_path / "weights.csv")
    group = [{"name": "instilled", "file": str(tmp_path / "contexts.jsonl")}]
    values = {
        "seed": 0,
        "output": str(tmp_path / str(trials)),
        "engine": {"name": "simulated"},
        "arms": {"arm": None},
        "planted": {"arm": {"report_accuracy": 0.5, "unreadable": 0.1}},
        "planted_weights": str(tmp_path / "weights.csv"),
        "measurements": [
            {"arm": "arm", "measure": "decisions", "contexts": group, "per_context": trials // 200},
            {"arm": "arm", "measure": "reports", "contexts": group, "per_context": trials // 100},
        ],
    }
    path = tmp_path / f"{trials}.yaml"
    path.write_text(yaml.safe_dump(values))
    evaluation = [sys.executable, "-m", "eval.run", "--config", str(path), "--quiet"]
    found = subprocess.run([sys.executable, "-c", MEASURE, *evaluation], cwd=ROOT, capture_output=True, text=True)
    assert found.returncode == 0, found.stderr
    files = (tmp_path / str(trials)).rglob("trials.parquet")
    assert sum(pq.read_metadata(file).num_rows for file in files) == trials
    return int(found.stdout.splitlines()[-1]) / 1024


def test_fifty_thousand_trials_need_the_memory_of_five_thousand(tmp_path: Path):
    few, many = peak(tmp_path, 5_000), peak(tmp_path, 50_000)
    print(f"{few:.1f} MB for 5,000 trials, {many:.1f} MB for 50,000")
    assert many < 1.1 * few
