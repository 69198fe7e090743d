"""What a finished run leaves for W&B, read from the offline run that the real command writes."""

import json
import math
import os
import socket
import subprocess
import sys
from pathlib import Path

import pandas as pd
import pytest
import yaml
from PIL import Image

from store.manifests import TrackedFacts, read_manifest
from support import ROOT
from wandb_records import OfflineRun, files_with, offline_runs

SECRETS = {"WANDB_API_KEY": "f00dfeed" * 5, "HF_TOKEN": "hf_NotToBeFoundInAnyFile"}
CONTEXTS = {
    "instilled": {"file": "task/data/instilled.jsonl", "count": 8},
    "native": {"file": "task/data/native.jsonl", "count": 4},
}


def run(*command: str, **environment: str) -> subprocess.CompletedProcess[str]:
    variables = {**os.environ, "WANDB_MODE": "offline", **environment}
    done = subprocess.run([sys.executable, *command], cwd=ROOT, capture_output=True, text=True, env=variables)
    assert not [secret for secret in SECRETS.values() if secret in done.stdout + done.stderr]
    return done


def track(folder: Path, **environment: str) -> subprocess.CompletedProcess[str]:
    return run("-m", "experiment.track", "--run", str(folder), **environment)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A small simulated run, made with tokens in the environment."""
    runs = tmp_path_factory.mktemp("runs")
    experiment = yaml.safe_load((ROOT / "configs" / "experiments" / "simulated.yaml").read_text())
    (runs / "experiment.yaml").write_text(yaml.safe_dump(experiment | {"name": "small", "contexts": CONTEXTS}))
    done = run("scripts/run_experiment.py", str(runs / "experiment.yaml"), "--runs", str(runs), **SECRETS)
    assert done.returncode == 0, done.stderr
    return runs / "small-seed0"


@pytest.fixture(scope="module")
def tracked(folder: Path) -> OfflineRun:
    [found] = offline_runs(folder / "wandb")
    return found


def test_it_is_one_run_in_the_group(tracked: OfflineRun, folder: Path):
    assert (tracked.group, tracked.name, tracked.job_type) == ("small-seed0", "small-seed0/analysis", "analysis")
    assert tracked.config["experiment"]["name"] == "small" and tracked.config["seed"] == 0
    assert read_manifest(folder / "tracked", TrackedFacts).facts.id == tracked.id


def test_every_figure_is_there(tracked: OfflineRun, folder: Path):
    drawn = {path.stem: path for path in (folder / "analysis" / "figures").glob("*.png")}
    assert {"scatter", "correlations", "decisions"} <= set(drawn)
    for name, path in drawn.items():
        assert Image.open(tracked.media(f"figures/{name}")).size == Image.open(path).size


def table(tracked: OfflineRun, name: str) -> pd.DataFrame:
    content = json.loads(tracked.media(f"evaluation/{name}").read_text())
    return pd.DataFrame(content["data"], columns=content["columns"])


def test_the_tables_hold_what_the_analysis_found(tracked: OfflineRun, folder: Path):
    found = json.loads((folder / "analysis" / "summary.json").read_text())
    for name in ("agreement", "weights"):
        written = pd.read_csv(folder / "analysis" / f"{name}.csv")
        logged = table(tracked, name).fillna(math.nan)
        pd.testing.assert_frame_equal(logged, written, check_dtype=False)
    missing = table(tracked, "missing_reports").groupby("comparison")["count"].sum()
    for name, count in missing.items():
        comparison = found["comparisons"][name]
        assert count == comparison["total_reports"] - comparison["valid_reports"] > 0
    decisions = table(tracked, "decisions").set_index(["arm", "group"])
    assert decisions.loc[("instilled", "instilled"), "agreement"] == found["gate"]["agreement"]
    assert table(tracked, "gate").set_index("measure").loc["passed", "found"] == str(found["gate"]["passed"])


def test_the_headline_figures_are_in_the_summary(tracked: OfflineRun, folder: Path):
    found = json.loads((folder / "analysis" / "summary.json").read_text())
    for name in ("instilled", "native_after"):
        for measure in ("r", "boot_low", "boot_high", "valid_reports", "total_reports"):
            assert tracked.summary[f"{name}/{measure}"] == found["comparisons"][name][measure]
    assert tracked.summary["learned_vs_target/r"] == found["learned_vs_target"]["r"]
    assert tracked.summary["gate/passed"] is True


def test_no_secret_is_in_any_file(tracked: OfflineRun, folder: Path):
    assert files_with(tracked.folder, "small-seed0/analysis"), "it can find what is there"
    assert not files_with(folder, *SECRETS.values())


def test_it_is_logged_once_and_again_when_the_analysis_is_another_one(folder: Path, tracked: OfflineRun):
    done = track(folder)
    assert done.returncode == 0 and "logged before" in done.stdout
    assert len(offline_runs(folder / "wandb")) == 1
    path = folder / "analysis" / "summary.json"
    found = json.loads(path.read_text())
    path.write_text(json.dumps({**found, "git": "another revision", "packages": {}}))
    assert "logged before" in track(folder).stdout, "the same figures"
    found["gate"] |= {"passed": False, "reasons": ["agreement is low", "training stopped at step 9"]}
    found["comparisons"]["instilled"] |= {"r": None, "boot_low": None, "testable": False, "reason": "no decisions"}
    found["stopped_early"] = {"instilled": "step 9: all A"}
    path.write_text(json.dumps(found))
    assert "logged to W&B (offline)" in track(folder).stdout
    first, second = offline_runs(folder / "wandb")
    assert first.id == tracked.id != second.id and second.group == tracked.group
    assert "instilled/r" not in second.summary, "a figure that is withheld stays withheld"
    assert second.summary["instilled/not_testable"] == "no decisions" and "instilled/not_testable" not in first.summary
    assert second.summary["stopped_early/instilled"] == "step 9: all A"
    assert "training stopped at step 9" in table(second, "gate").set_index("measure").loc["reasons", "found"]


@pytest.fixture
def untracked(folder: Path, tmp_path: Path) -> Path:
    """The run's results in a folder where nothing was logged."""
    for name in ("run.json", "analysis"):
        (tmp_path / name).symlink_to(folder / name)
    return tmp_path


def test_disabled_it_writes_nothing(untracked: Path):
    done = track(untracked, WANDB_MODE="disabled")
    assert done.returncode == 0 and "disabled" in done.stdout
    assert {path.name for path in untracked.iterdir()} == {"run.json", "analysis"}


@pytest.mark.parametrize("key", ["", SECRETS["WANDB_API_KEY"]], ids=["no login", "a proxy that hangs"])
def test_where_w_and_b_cannot_be_reached_it_is_logged_offline(untracked: Path, key: str):
    with socket.socket() as silent:
        silent.bind(("127.0.0.1", 0))
        silent.listen()
        proxy = f"http://me:{SECRETS['HF_TOKEN']}@127.0.0.1:{silent.getsockname()[1]}"
        nowhere = {"HTTPS_PROXY": proxy, "WANDB_INIT_TIMEOUT": "1", "NETRC": "/nowhere"}
        done = track(untracked, WANDB_MODE="online", WANDB_API_KEY=key, **nowhere)
    assert done.returncode == 0 and "logged to W&B (offline)" in done.stdout
    [line] = [line for line in done.stderr.splitlines() if line.strip()]
    assert line.startswith("warning: W") and "going on offline" in line
    assert read_manifest(untracked / "tracked", TrackedFacts).facts.mode == "offline"
    assert len(offline_runs(untracked / "wandb")) == 1


def test_without_an_analysis_it_says_what_to_do(tmp_path: Path):
    done = track(tmp_path)
    assert done.returncode == 2 and done.stderr.startswith("error: ") and "run.json: no such file" in done.stderr
    assert len(done.stderr.splitlines()) == 1
