"""Evaluations shared among processes: the files are those of one process, byte for byte."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml

from eval.engines import make_engine
from eval.parts import Part, parse_part, share_gpus, start_parts, visible_gpus
from eval.run import check_ended
from eval.runner import evaluate, merge
from eval.work import list_work
from store.contexts import DATA, load_contexts, save_contexts
from store.evaluation import EngineSettings, EvalConfig
from store.weights import save_weights
from support import ROOT, kill_when
from task.errors import InputError
from task.weights import sample_weights

ARRAY = {"SLURM_ARRAY_TASK_MIN": "1", "SLURM_ARRAY_TASK_MAX": "3", "SLURM_ARRAY_TASK_COUNT": "3"}


@pytest.fixture
def settings(tmp_path: Path) -> dict[str, Any]:
    contexts = load_contexts(DATA / "instilled.jsonl", 6)
    save_contexts(contexts, tmp_path / "contexts.jsonl")
    save_weights({c.name: sample_weights(0, "target_weights", c) for c in contexts}, tmp_path / "weights.csv")
    group = [{"name": "instilled", "file": str(tmp_path / "contexts.jsonl")}]
    return {
        "seed": 0,
        "output": str(tmp_path / "trials"),
        "engine": {"name": "simulated", "shard_size": 8},
        "arms": {"arm": None},
        "planted": {"arm": {"report_accuracy": 0.5, "unreadable": 0.2}},
        "planted_weights": str(tmp_path / "weights.csv"),
        "measurements": [
            {"arm": "arm", "measure": "decisions", "contexts": group, "per_context": 5},
            {"arm": "arm", "measure": "reports", "contexts": group, "per_context": 3},
            {"arm": "arm", "measure": "reports", "variant": "no_trial", "contexts": group, "per_context": 1},
        ],
    }


def files(values: dict[str, Any]) -> dict[str, bytes]:
    output = Path(values["output"])
    return {str(p.relative_to(output)): p.read_bytes() for p in sorted(output.rglob("trials.parquet"))}


def straight(values: dict[str, Any], tmp_path: Path) -> dict[str, bytes]:
    """The trial files that one process makes."""
    alone = {**values, "output": str(tmp_path / "straight")}
    config = EvalConfig.model_validate(alone)
    evaluate(make_engine(config), config)
    assert len(files(alone)) == 3
    return files(alone)


def run(values: dict[str, Any], tmp_path: Path, *more: str, **environment: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        command(values, tmp_path, *more), cwd=ROOT, env={**os.environ, **environment}, capture_output=True, text=True
    )


def command(values: dict[str, Any], tmp_path: Path, *more: str) -> list[str]:
    (tmp_path / "evaluate.yaml").write_text(yaml.safe_dump(values))
    return [sys.executable, "-m", "eval.run", "--config", str(tmp_path / "evaluate.yaml"), *more]


def test_parts_take_every_shard_once_and_like_shares_of_each_measurement(settings: dict[str, Any]):
    works = list_work(EvalConfig.model_validate(settings))
    shards = sum(work.shards for work in works)
    owners = [[n for n in range(shards) if Part(i, 3).has(n)] for i in (1, 2, 3)]
    assert sorted(shard for mine in owners for shard in mine) == list(range(shards))
    first = works[0].shards
    counts = [sum(n < first for n in mine) for mine in owners]
    assert max(counts) - min(counts) <= 1


@pytest.mark.parametrize("order", [(1, 2, 3), (3, 1, 2)])
def test_three_parts_are_one(settings: dict[str, Any], tmp_path: Path, order: tuple[int, ...]):
    config = EvalConfig.model_validate(settings)
    for number in order:
        with pytest.raises(InputError, match=r"not begun|shards are missing"):
            merge(config)
        assert not files(settings), "nothing is joined before all parts are there"
        evaluate(make_engine(config), config, part=Part(number, 3))
    merge(config)
    assert files(settings) == straight(settings, tmp_path)
    merge(config)
    evaluate(make_engine(config), config, part=Part(2, 3))
    assert files(settings) == straight(settings, tmp_path), "what is finished stays"
    assert not list(Path(settings["output"]).rglob("shards"))


def test_one_command_starts_all_processes(settings: dict[str, Any], tmp_path: Path):
    result = run(settings, tmp_path, "--processes", "3")
    assert result.returncode == 0, result.stderr
    assert files(settings) == straight(settings, tmp_path)
    assert "/84 [" in result.stderr and "trial/s" in result.stderr, "one line for the progress of all parts"
    assert result.stderr.count("3 processes: ") == result.stderr.count("/84 [") - 1, "the first is drawn unnamed"


def test_processes_may_be_a_setting(settings: dict[str, Any], tmp_path: Path):
    shared = {**settings, "engine": {**settings["engine"], "processes": 2}}
    assert run(shared, tmp_path).returncode == 0
    assert files(shared) == straight(settings, tmp_path)
    again = run({**shared, "planted": {"arm": {"report_accuracy": 0.9}}}, tmp_path)
    assert again.returncode == 2 and "made from other inputs" in again.stderr
    assert len([line for line in again.stderr.splitlines() if line.startswith("error: ")]) == 1


def test_tasks_of_an_array_job_that_start_at_the_same_moment(settings: dict[str, Any], tmp_path: Path):
    line = command(settings, tmp_path, "--part", "slurm")
    tasks = [
        subprocess.Popen(line, cwd=ROOT, env={**os.environ, **ARRAY, "SLURM_ARRAY_TASK_ID": str(task)})
        for task in (1, 2, 3)
    ]
    assert [task.wait() for task in tasks] == [0, 0, 0]
    assert not files(settings)
    result = run(settings, tmp_path, "--merge")
    assert result.returncode == 0, result.stderr
    assert files(settings) == straight(settings, tmp_path)


def test_a_part_is_killed_and_run_again(settings: dict[str, Any], tmp_path: Path):
    settings["measurements"][0]["per_context"] = 100
    settings["engine"]["shard_size"] = 16
    folder = Path(settings["output"]) / "arm" / "decisions" / "shards"
    kill_when(command(settings, tmp_path, "--part", "2/3"), lambda: (folder / "00007.parquet").exists())
    for part in ("1/3", "3/3"):
        assert run(settings, tmp_path, "--part", part).returncode == 0
    result = run(settings, tmp_path, "--merge")
    assert result.returncode == 2 and "shards are missing" in result.stderr
    assert run(settings, tmp_path, "--part", "2/3").returncode == 0
    assert run(settings, tmp_path, "--merge").returncode == 0
    assert files(settings) == straight(settings, tmp_path)


def test_killed_with_all_its_processes_it_goes_on(settings: dict[str, Any], tmp_path: Path):
    settings["measurements"][0]["per_context"] = 100
    settings["engine"]["shard_size"] = 16
    folder = Path(settings["output"]) / "arm" / "decisions" / "shards"
    line = command(settings, tmp_path, "--processes", "3")
    kill_when(line, lambda: folder.is_dir() and len([*folder.glob("*.parquet")]) > 12)
    assert not files(settings)
    # With another number of processes: what each shard holds does not depend on who wrote it.
    assert run(settings, tmp_path, "--processes", "2").returncode == 0
    assert files(settings) == straight(settings, tmp_path)


def test_begun_once_for_all_parts_other_inputs_are_replaced(settings: dict[str, Any], tmp_path: Path):
    assert run(settings, tmp_path, "--processes", "1").returncode == 0
    before = files(settings)
    settings["planted"]["arm"]["report_accuracy"] = 0.9
    refused = run(settings, tmp_path, "--begin")
    assert refused.returncode == 2 and "made from other inputs" in refused.stderr and files(settings) == before
    assert "give it to --begin" in run(settings, tmp_path, "--part", "1/2", "--overwrite").stderr
    begun = run(settings, tmp_path, "--begin", "--overwrite")
    assert "3 trial files, 0 finished" in begun.stdout and not files(settings)
    config = EvalConfig.model_validate(settings)
    evaluate(make_engine(config), config, part=Part(1, 2))
    assert run(settings, tmp_path, "--begin", "--overwrite").returncode == 0, "asked for again, it keeps what is there"
    evaluate(make_engine(config), config, part=Part(2, 2))
    merge(config)
    assert files(settings) == straight(settings, tmp_path) != before


def test_a_merge_refuses_other_settings(settings: dict[str, Any]):
    config = EvalConfig.model_validate(settings)
    for number in (1, 2):
        evaluate(make_engine(config), config, part=Part(number, 2))
    settings["measurements"][0]["per_context"] = 6
    with pytest.raises(InputError, match=r"per_context: 5 -> 6"):
        merge(EvalConfig.model_validate(settings))


def test_three_parts_of_a_real_model_are_one(settings: dict[str, Any], tmp_path: Path, tiny_model: Path):
    settings |= {
        "engine": {"name": "transformers", "shard_size": 4, "batch_size": 4},
        "model": {"name": str(tiny_model)},
    }
    for entry, count in zip(settings["measurements"], (1, 1, 1), strict=True):
        entry["per_context"] = count
    config = EvalConfig.model_validate(settings)
    for number in (2, 3, 1):
        evaluate(make_engine(config), config, part=Part(number, 3))  # a new engine each, as in a process of its own
    merge(config)
    assert files(settings) == straight(settings, tmp_path)


def test_a_part_that_fails_is_named(settings: dict[str, Any], tmp_path: Path):
    settings["measurements"][0]["per_context"] = 100
    (Path(settings["output"]) / "arm" / "decisions").mkdir(parents=True)
    (Path(settings["output"]) / "arm" / "decisions" / "shards").write_text("a file where a folder belongs")
    result = run(settings, tmp_path, "--part", "1/2")
    assert result.returncode == 2 and "not empty and not made by this stage" in result.stderr


def test_what_is_said_of_parts_that_failed_is_true():
    check_ended([0, 0])
    with pytest.raises(SystemExit, match="2"):  # it has said its own line
        check_ended([0, 2, -9])
    with pytest.raises(InputError, match=r"part 2/3 was killed \(SIGKILL\); the same command goes on from there"):
        check_ended([0, -9, 1])
    with pytest.raises(InputError, match=r"part 3/3 ended with status 1; what it says above is the cause"):
        check_ended([0, 0, 1])


@pytest.mark.parametrize("text", ["0/3", "4/3", "1", "1/0", "a/b", "1/3/5", "-1/3", ""])
def test_what_is_no_part_is_refused(text: str):
    with pytest.raises(InputError, match=r"--part .*: not a part; give i/N"):
        parse_part(text, {})


def test_parts_of_an_array_job():
    assert parse_part("2/4", ARRAY) == Part(2, 4)
    assert parse_part("slurm", {**ARRAY, "SLURM_ARRAY_TASK_ID": "3"}) == Part(3, 3)
    from_zero = {"SLURM_ARRAY_TASK_MIN": "0", "SLURM_ARRAY_TASK_MAX": "3", "SLURM_ARRAY_TASK_COUNT": "4"}
    assert parse_part("slurm", {**from_zero, "SLURM_ARRAY_TASK_ID": "0"}) == Part(1, 4)
    with pytest.raises(InputError, match="SLURM_ARRAY_TASK_ID is not set"):
        parse_part("slurm", ARRAY)
    with pytest.raises(InputError, match="array 1-5 of 3 tasks has gaps"):
        parse_part("slurm", {**ARRAY, "SLURM_ARRAY_TASK_MAX": "5", "SLURM_ARRAY_TASK_ID": "1"})


def test_gpus_are_shared_out():
    one, two = EngineSettings(), EngineSettings(vllm={"tensor_parallel_size": 2})
    assert share_gpus(["0", "1", "2", "3"], 4, one) == ["0", "1", "2", "3"]
    assert share_gpus(["4", "5", "6", "7"], 2, two) == ["4,5", "6,7"]
    assert share_gpus(["GPU-a", "GPU-b"], 1, two) == ["GPU-a,GPU-b"]
    assert share_gpus([], 3, one) == [None, None, None], "without GPUs nothing is pinned"
    with pytest.raises(InputError, match="3 processes with 2 GPUs each need 6, 4 are visible"):
        share_gpus(["0", "1", "2", "3"], 3, two)


def test_visible_gpus(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    assert visible_gpus({"CUDA_VISIBLE_DEVICES": "2, 3"}) == ["2", "3"]
    assert visible_gpus({"CUDA_VISIBLE_DEVICES": ""}) == visible_gpus({"CUDA_VISIBLE_DEVICES": "-1"}) == []
    tool = tmp_path / "nvidia-smi"
    tool.write_text("#!/bin/sh\necho 'GPU 0: NVIDIA H100 (UUID: GPU-1)'\necho 'GPU 1: NVIDIA H100 (UUID: GPU-2)'\n")
    tool.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:{os.environ['PATH']}")
    assert visible_gpus({}) == ["0", "1"]
    monkeypatch.setenv("PATH", str(tmp_path / "empty"))
    assert visible_gpus({}) == []


def test_each_process_is_a_part_and_sees_its_own_gpus(tmp_path: Path):
    # argv is -c --part i/N --quiet
    write = (
        "import os, sys, pathlib; "
        f"pathlib.Path({str(tmp_path)!r}, sys.argv[2][0]).write_text(os.environ['CUDA_VISIBLE_DEVICES'])"
    )
    assert [process.wait() for process in start_parts(["-c", write], ["4,5", "6,7"])] == [0, 0]
    assert [(tmp_path / part).read_text() for part in ("1", "2")] == ["4,5", "6,7"]


def test_more_gpus_than_there_are(settings: dict[str, Any], tmp_path: Path):
    settings |= {"engine": {"name": "transformers"}, "model": {"name": "nobody/nothing"}}
    too_many = run(settings, tmp_path, "--processes", "3", CUDA_VISIBLE_DEVICES="0,1")
    assert too_many.returncode == 2 and "3 processes with 1 GPUs each need 3, 2 are visible" in too_many.stderr
    assert not Path(settings["output"]).exists()
