"""Races: whatever is killed, started again or started twice, the end is the uninterrupted result, or a refusal.

In CI each race is run once; `FUZZ=10 pytest tests/experiment/test_races.py -s` repeats them ten times and kills
trainings, too.
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml

from eval.engines import make_engine
from eval.parts import Part
from eval.run import begin
from eval.runner import evaluate, merge
from eval.work import list_work
from fuzzing import LONGER
from store import locks
from store.contexts import DATA, load_contexts, save_contexts
from store.evaluation import EvalConfig
from store.examples import ExamplesConfig
from store.files import read_json
from store.weights import save_weights
from support import ROOT, experiment_command, run_experiment
from task.errors import InputError
from task.weights import sample_weights

SIGNALS = (signal.SIGTERM, signal.SIGINT, signal.SIGHUP, signal.SIGKILL)

REFUSAL = "works there; wait until it has ended, or end it"


@pytest.fixture(scope="module")
def simulation(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A simulation with many small shards."""
    folder = tmp_path_factory.mktemp("simulation")
    values = yaml.safe_load((ROOT / "configs" / "experiments" / "simulated.yaml").read_text())
    values["contexts"]["instilled"]["count"], values["contexts"]["native"]["count"] = 16, 4
    values["engine"]["shard_size"] = 10
    (folder / "simulated.yaml").write_text(yaml.safe_dump(values))
    return folder / "simulated.yaml"


@pytest.fixture(scope="module")
def straight_trials(simulation: Path) -> dict[str, bytes]:
    """The trials of that simulation, which nothing interrupted."""
    runs = simulation.with_name("straight")
    result = run_experiment(simulation, runs, "--only", "evaluate")
    assert result.returncode == 0, result.stderr
    return results(runs, "trials.parquet")


def wait_until(condition: Callable[[], object], seconds: float = 120) -> None:
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, "it never came"
        time.sleep(0.01)


def running(where: Path) -> list[str]:
    """The processes that have a folder in their command line."""
    found = []
    for process in Path("/proc").glob("[0-9]*"):
        try:
            words = (process / "cmdline").read_bytes().decode(errors="replace").replace("\0", " ")
        except OSError:  # it has just ended
            continue
        if str(where) in words:
            found.append(words)
    return found


def start(command: list[str]) -> subprocess.Popen[str]:
    """Start a command as a shell does: in a group of its own."""
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE}
    return subprocess.Popen(command, cwd=ROOT, text=True, start_new_session=True, **pipes)  # type: ignore[call-overload]


def shards(folder: Path) -> int:
    return len([*folder.rglob("shards/*.parquet")])


def results(run: Path, *names: str) -> dict[str, bytes]:
    """What a run has found: the files of some names, by their place in it."""
    return {str(p.relative_to(run)): p.read_bytes() for name in names for p in sorted(run.rglob(name))}


def check_refused_or_done(process: subprocess.Popen[str], refusal: str) -> str:
    """How one of two commands ended, which must be well, or with one line that names the other."""
    _, err = process.communicate(timeout=300)
    if process.returncode == 0:
        return "done"
    assert process.returncode == 2, err
    lines = [line for line in err.splitlines() if line.startswith("error: ")]
    assert len(lines) == 1 and refusal in lines[0] and "since 20" in lines[0], err
    return "refused"


@pytest.mark.timeout(600 * LONGER)
def test_the_launcher_is_killed_by_each_signal_and_started_again_at_once(
    simulation: Path, straight_trials: dict[str, bytes], tmp_path: Path
):
    """Only the launcher is hit: what it has started must end with it, and leave nothing that is not gone on with."""
    random = np.random.default_rng(0)
    for repetition in range(LONGER):
        runs = tmp_path / f"killed{repetition}"
        command = experiment_command(simulation, runs, "--only", "evaluate")
        for number, sent in enumerate(SIGNALS):
            process = start(command)
            goal = shards(runs) + 1 + int(random.integers(0, 5))
            if number < 3 or repetition % 2 == 0:
                wait_until(lambda: shards(runs) >= goal or process.poll() is not None)  # noqa: B023
            else:
                time.sleep(random.uniform(0, 3))  # at any moment, before the first stage, too
            process.send_signal(sent)  # not to one that has ended: done, or refused as the last is still ending
            if sent != signal.SIGKILL and process.wait(60) != 0:
                assert process.returncode in (128 + sent, -sent, 2)
                assert len(process.stderr.read().splitlines()) <= 1  # type: ignore[union-attr]
        last = run_experiment(simulation, runs, "--only", "evaluate")
        assert last.returncode == 0, last.stderr
        assert results(runs, "trials.parquet") == straight_trials
        wait_until(lambda: not running(runs), 20)  # noqa: B023
    print(f"\n{LONGER * len(SIGNALS)} kills of the launcher in an evaluation: every end the uninterrupted one")


def test_a_second_launcher_changes_nothing_of_a_run_that_is_under_way(
    simulation: Path, straight_trials: dict[str, bytes], tmp_path: Path
):
    """Not even with another experiment file of the same name, whose settings the stages to come would read."""
    runs, folder = tmp_path / "runs", tmp_path / "runs" / "simulated-seed0"
    first = start(experiment_command(simulation, runs, "--only", "evaluate"))
    wait_until(lambda: shards(runs))
    os.kill(first.pid, signal.SIGSTOP)
    before = results(folder, "*.yaml", "run.json")
    values = yaml.safe_load(simulation.read_text())
    values["measurements"][-1]["per_context"] += 1
    (tmp_path / "other.yaml").write_text(yaml.safe_dump(values))
    second = start(experiment_command(tmp_path / "other.yaml", runs, "--only", "evaluate"))
    assert check_refused_or_done(second, f"process {first.pid} on ") == "refused"
    assert results(folder, "*.yaml", "run.json") == before
    os.kill(first.pid, signal.SIGCONT)
    assert check_refused_or_done(first, REFUSAL) == "done"
    assert results(runs, "trials.parquet") == straight_trials


@pytest.mark.skipif(LONGER == 1, reason="FUZZ=10 runs it")
@pytest.mark.timeout(600 * LONGER)
def test_two_launchers_at_once(simulation: Path, straight_trials: dict[str, bytes], tmp_path: Path):
    ends = Counter[str]()
    for repetition in range(LONGER):
        runs = tmp_path / f"twice{repetition}"
        both = [start(experiment_command(simulation, runs, "--only", "evaluate")) for _ in range(2)]
        ended = [check_refused_or_done(process, REFUSAL) for process in both]
        ends.update(ended)
        assert "done" in ended and results(runs, "trials.parquet") == straight_trials
    print(f"\ntwo launchers at once, {LONGER} times: {dict(ends)}")


@pytest.fixture
def evaluation(tmp_path: Path) -> dict[str, Any]:
    """The configuration of a simulated evaluation of some seconds."""
    contexts = load_contexts(DATA / "instilled.jsonl", 12)
    save_contexts(contexts, tmp_path / "contexts.jsonl")
    save_weights({c.name: sample_weights(0, "target_weights", c) for c in contexts}, tmp_path / "weights.csv")
    group = [{"name": "instilled", "file": str(tmp_path / "contexts.jsonl")}]
    return {
        "seed": 0,
        "output": str(tmp_path / "run" / "trials"),
        "engine": {"name": "simulated", "shard_size": 4},
        "arms": {"arm": None},
        "planted": {"arm": {"report_accuracy": 0.5}},
        "planted_weights": str(tmp_path / "weights.csv"),
        "measurements": [
            {"arm": "arm", "measure": "decisions", "contexts": group, "per_context": 10},
            {"arm": "arm", "measure": "reports", "contexts": group, "per_context": 10},
        ],
    }


def evaluate_command(values: dict[str, Any], folder: Path, *more: str) -> list[str]:
    (folder / "evaluate.yaml").write_text(yaml.safe_dump(values))
    return [sys.executable, "-m", "eval.run", "--config", str(folder / "evaluate.yaml"), *more]


def evaluated(values: dict[str, Any], folder: Path) -> dict[str, bytes]:
    """What one process makes of an evaluation."""
    config = EvalConfig.model_validate({**values, "output": str(folder)})
    evaluate(make_engine(config), config)
    return results(folder, "trials.parquet")


@pytest.mark.timeout(600 * LONGER)
def test_beside_a_running_part_only_other_parts_may_work(
    evaluation: dict[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(locks, "PATIENCE", 0.2)
    straight, config = evaluated(evaluation, tmp_path / "straight"), EvalConfig.model_validate(evaluation)
    engine = make_engine(config)
    for _ in range(LONGER):
        process = start(evaluate_command(evaluation, tmp_path, "--part", "1/2"))
        wait_until(lambda: shards(tmp_path / "run"))
        os.kill(process.pid, signal.SIGSTOP)  # it stays in the middle of its work
        there = shards(tmp_path / "run")
        for other in (
            lambda: merge(config),
            lambda: begin(config, list_work(config), overwrite=True),
            lambda: evaluate(engine, config),
            lambda: evaluate(engine, config, part=Part(1, 2)),
        ):
            with pytest.raises(InputError, match=rf"process {process.pid} .*eval/run.py, part 1 of 2\), since 20"):
                other()
        assert shards(tmp_path / "run") == there, "what was refused has changed nothing"
        evaluate(engine, config, part=Part(2, 2))
        os.kill(process.pid, signal.SIGCONT)
        assert process.wait(60) == 0
        merge(config)
        assert results(tmp_path / "run", "trials.parquet") == {f"trials/{p}": c for p, c in straight.items()}
        assert [p.name for p in (tmp_path / "run").iterdir()] == ["trials"], "no lock is left"
        (tmp_path / "run").rename(tmp_path / f"run-{time.monotonic_ns()}")


@pytest.mark.timeout(600 * LONGER)
def test_the_processes_of_an_evaluation_end_with_the_one_that_started_them(evaluation: dict[str, Any], tmp_path: Path):
    straight = evaluated(evaluation, tmp_path / "straight")
    for repetition in range(LONGER):
        sent = SIGNALS[(repetition + 3) % 4]
        process = start(evaluate_command(evaluation, tmp_path, "--processes", "2"))
        wait_until(lambda: shards(tmp_path / "run") > 2)
        os.kill(process.pid, sent)
        process.wait(60)
        config = EvalConfig.model_validate(evaluation)
        evaluate(make_engine(config), config)  # at once, by another process
        assert not running(tmp_path / "evaluate.yaml")
        assert results(tmp_path / "run", "trials.parquet") == {f"trials/{p}": c for p, c in straight.items()}
        (tmp_path / "run").rename(tmp_path / f"run{repetition}")


@pytest.fixture
def training(tmp_path: Path, tiny_model: Path) -> dict[str, Any]:
    """The settings of a training of a few seconds."""
    from train.examples import make_examples

    contexts = load_contexts(DATA / "instilled.jsonl", 4)
    save_contexts(contexts, tmp_path / "contexts.jsonl")
    save_weights({c.name: sample_weights(0, "target_weights", c) for c in contexts}, tmp_path / "weights.csv")
    config = ExamplesConfig(
        contexts=str(tmp_path / "contexts.jsonl"),
        weights=str(tmp_path / "weights.csv"),
        teach="decisions",
        output=str(tmp_path / "examples"),
        seed=0,
        train_per_context=8,
        validation_per_context=0,
    )
    make_examples(config)
    return {
        "model_name_or_path": str(tiny_model),
        "train_file": str(tmp_path / "examples" / "train.jsonl"),
        "per_device_train_batch_size": 4,
        "num_train_epochs": 1,
        "learning_rate": 0.01,
        "lora_r": 4,
        "save_steps": 2,
        "logging_steps": 1,
        "report_to": "none",
    }


def training_command(values: dict[str, Any], output: Path) -> list[str]:
    path = output.with_suffix(".yaml")
    path.write_text(yaml.safe_dump({**values, "output_dir": str(output)}))
    return [sys.executable, "train/sft.py", "--config", str(path)]


@pytest.mark.timeout(600 * LONGER)
def test_two_trainers_at_once(training: dict[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    from train import sft

    monkeypatch.setattr(sys, "argv", training_command(training, tmp_path / "straight")[1:])
    sft.main()
    ends = Counter[str]()
    for repetition in range(LONGER):
        output = tmp_path / f"twice{repetition}"
        both = [start(training_command(training, output)) for _ in range(2)]
        ended = [check_refused_or_done(process, REFUSAL) for process in both]
        ends.update(ended)
        assert "done" in ended
        name = "adapter_model.safetensors"
        assert (output / name).read_bytes() == (tmp_path / "straight" / name).read_bytes()
        steps = [entry["step"] for entry in read_json(output / "log_history.json") if "loss" in entry]
        assert steps == [*range(1, 9)], "each step was taken once"
    print(f"\ntwo trainers at once, {LONGER} times: {dict(ends)}")


@pytest.mark.skipif(LONGER == 1, reason="takes minutes; FUZZ=10 runs it. test_pipeline kills a training in any case")
@pytest.mark.timeout(600 * LONGER)
def test_the_launcher_is_killed_in_a_training_and_started_again_at_once(
    tiny_experiment: Path, straight: Path, tmp_path: Path
):
    for repetition in range(LONGER):
        runs, sent = tmp_path / f"killed{repetition}", SIGNALS[repetition % 4]
        command = experiment_command(tiny_experiment, runs, "--only", "instilled.examples", "instilled.sft")
        process, adapter = start(command), runs / "tiny-seed0" / "adapters" / "instilled"
        wait_until(lambda: any(adapter.glob("checkpoint-*/trainer_state.json")), 300)  # noqa: B023
        os.kill(process.pid, sent)
        again = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
        assert again.returncode == 0, again.stderr
        same = "adapters/instilled/adapter_model.safetensors"
        assert (runs / "tiny-seed0" / same).read_bytes() == (straight / same).read_bytes()
        assert not running(runs)
    print(f"\n{LONGER} kills of the launcher in a training: every adapter the uninterrupted one")


@pytest.fixture(autouse=True)
def nothing_runs_on(tmp_path: Path) -> Iterator[None]:
    """Fail if a process of a test is left, and end it."""
    yield
    left = running(tmp_path)
    assert not left, left
