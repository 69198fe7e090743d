"""Trainings that are killed, stopped or shared by processes end as one that nothing interrupted."""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

import pytest

from fuzzing import LONGER
from store.checkpoints import last_complete_checkpoint, step_of
from store.manifests import KeptCheckpoint
from support import ROOT, kill_when
from teaching import (
    KEPT,
    LAUNCH,
    SHARED,
    STEPS,
    command,
    held_out,
    kept_by,
    left_by,
    manifest_of,
    run,
    settings,
    train_here,
)
from wandb_records import offline_runs


def test_killed_and_started_again_it_ends_the_same(tiny_model: Path, examples: Path, tmp_path: Path, instilled: Path):
    """Killed after two checkpoints, the newer one cut off: it goes on from the older one, to the same adapter."""
    group = {"WANDB_RUN_GROUP": "demo-seed0", "WANDB_MODE": "offline"}
    values = settings(tiny_model, examples, tmp_path / "killed", report_to="wandb", env=group, **STEPS)
    kill_when(command(values), lambda: len(list((tmp_path / "killed").glob("checkpoint-*/trainer_state.json"))) > 1)
    assert not (tmp_path / "killed" / "manifest.json").exists(), "the kill came too late to test anything"
    steps = sorted(int(p.name.split("-")[1]) for p in (tmp_path / "killed").glob("checkpoint-*"))
    tensors = tmp_path / "killed" / f"checkpoint-{steps[-1]}" / "adapter_model.safetensors"
    tensors.write_bytes(tensors.read_bytes()[:-1000])
    result = run(values)
    assert result.returncode == 0, result.stderr
    assert f"checkpoint-{steps[-1]}: passed over" in result.stderr
    assert f"resuming from {tmp_path / 'killed' / f'checkpoint-{steps[-2]}'}" in result.stderr
    assert left_by(tmp_path / "killed") == left_by(instilled), "bit for bit what was left where nothing interrupted"
    _, resumed = offline_runs(tmp_path / "killed" / "wandb")
    assert (resumed.group, resumed.name) == ("demo-seed0", f"killed (start 2, from step {steps[-2]})")
    assert resumed.steps("train/loss") == [*range(1, 17)], "the second start has the whole curve"
    assert resumed.steps("eval/agreement")[:4] == [4, 8, 12, 16]
    again = run(values)
    assert again.returncode == 0 and "finished before" in again.stdout
    assert len(offline_runs(tmp_path / "killed" / "wandb")) == 2


def test_the_weights_kept_are_those_of_the_best_step(tiny_model: Path, examples: Path, tmp_path: Path):
    """They are the weights of a training that ends there, and the figures are those of that step."""
    kept = {**KEPT, "metric_for_best_model": "agreement", "learning_rate": 0.03, "lr_scheduler_type": "constant"}
    values = settings(tiny_model, examples, tmp_path / "best", stop_patience=0, **kept)
    train_here(values)
    agreements = held_out(tmp_path / "best", "eval_agreement")
    best = max(agreements, key=agreements.__getitem__)
    assert best < 16, "the last step is the best one; nothing is tested"
    facts = manifest_of(tmp_path / "best").facts
    assert facts.kept == KeptCheckpoint(step=best, by="eval_agreement") and facts.steps == 16
    assert facts.metrics["eval_agreement"] == agreements[best]
    assert f"16 steps; these are the weights of step {best}," in (tmp_path / "best" / "README.md").read_text()
    values |= {"output_dir": str(tmp_path / "short"), "max_steps": best, "load_best_model_at_end": False}
    train_here(values)
    same = [(tmp_path / name / "adapter_model.safetensors").read_bytes() for name in ("best", "short")]
    assert same[0] == same[1]


def test_a_training_that_collapses_is_finished_early_killed_or_not(tiny_model: Path, examples: Path, tmp_path: Path):
    found = []
    for name in ("straight", "killed"):
        high = {"learning_rate": 0.1, "lr_scheduler_type": "constant", "stop_patience": 3}
        values = settings(tiny_model, examples, tmp_path / name, keep_steps=[3, 10, 12], **high, **KEPT)
        if name == "killed":
            kill_when(
                command(values, [sys.executable]), (tmp_path / name / "checkpoint-4" / "trainer_state.json").exists
            )
            assert not (tmp_path / name / "manifest.json").exists(), "the kill came too late to test anything"
        result = run(values, [sys.executable])
        assert result.returncode == 0, result.stderr
        assert ("resuming from" in result.stderr) == (name == "killed")
        assert f"{tmp_path / name}: stopped early at step 10: held-out decisions were nearly all one" in result.stderr
        facts = manifest_of(tmp_path / name).facts
        adapter = (tmp_path / name / "adapter_model.safetensors").read_bytes()
        found.append((facts.stopped_early, facts.kept, facts.steps, adapter, kept_by(tmp_path / name)))
        assert facts.kept_steps == [3, 10], "12 was not reached"
        assert f"Stopped early at {facts.stopped_early}" in (tmp_path / name / "README.md").read_text()
    assert found[0] == found[1] and found[0][2] == 10
    assert found[0][1] is not None and found[0][1].step < 10, "no checkpoint is written where it stops"


def test_the_effective_batch_is_shared_by_accumulation(
    tiny_model: Path, examples: Path, tmp_path: Path, instilled: Path
):
    more = {
        "effective_batch_size": 4,
        "per_device_train_batch_size": 2,
        "row_tokens": 400,
        "save_strategy": "no",
        **STEPS,
    }
    train_here(settings(tiny_model, examples, tmp_path / "shared", **more))
    manifests = [manifest_of(f) for f in (instilled, tmp_path / "shared")]
    assert manifests[0].key == manifests[1].key and manifests[1].facts.steps == 16
    losses = [m.facts.metrics["eval_loss"] for m in manifests]
    assert losses[0] == pytest.approx(losses[1], rel=1e-3)


def test_two_processes_make_one_adapter(instilled: Path, tiny_model: Path, examples: Path, tmp_path: Path):
    launch = [*LAUNCH[:-1], "configs/accelerate/cpu_ddp.yaml"]
    result = run(settings(tiny_model, examples, tmp_path / "two", per_device_train_batch_size=2, **STEPS), launch)
    assert result.returncode == 0, result.stderr
    manifests = [manifest_of(f) for f in (instilled, tmp_path / "two")]
    assert manifests[0].key == manifests[1].key, "the same work: same data, same effective batch"
    assert manifests[1].facts.steps == 16
    losses = [m.facts.metrics["eval_loss"] for m in manifests]
    assert losses[0] == pytest.approx(losses[1], rel=0.02)
    assert (tmp_path / "two" / "adapter_model.safetensors").is_file()
    assert kept_by(tmp_path / "two").keys() == kept_by(instilled).keys() and manifests[1].facts.kept_steps == [5, 14]


@pytest.fixture(scope="module")
def shared(tiny_model: Path, examples: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    output = tmp_path_factory.mktemp("adapters") / "shared"
    result = run(settings(tiny_model, examples, output, **SHARED))
    assert result.returncode == 0, result.stderr
    return output


def test_shared_prefixes_learn_as_much(shared: Path, instilled: Path):
    manifests = [manifest_of(f) for f in (instilled, shared)]
    assert manifests[0].key != manifests[1].key, "other batches, another adapter"
    assert manifests[1].facts.steps == 16
    losses = [m.facts.metrics["eval_loss"] for m in manifests]
    assert losses[0] == pytest.approx(losses[1], rel=0.05)


def ranks_of(settings_file: str) -> dict[str, int]:
    """The processes of a training by rank."""
    found = {}
    for process in Path("/proc").glob("[0-9]*"):
        with suppress(OSError):
            if settings_file.encode() in (process / "cmdline").read_bytes().split(b"\0"):
                variables = (process / "environ").read_bytes().decode(errors="replace").split("\0")
                found |= {v.removeprefix("RANK="): int(process.name) for v in variables if v.startswith("RANK=")}
    return found


def terminate_one_of_two(words: list[str], condition: Callable[[], bool]) -> None:
    """A preemption signal that reaches the second process only: both end, and so does what started them."""
    launcher = subprocess.Popen(words, cwd=ROOT, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    end = time.monotonic() + 240
    while not condition():
        assert launcher.poll() is None and time.monotonic() < end, "the moment never came"
        time.sleep(0.01)
    os.kill(ranks_of(words[-1])["1"], signal.SIGTERM)
    assert launcher.wait(timeout=60) != 0
    assert not ranks_of(words[-1]), "no process is left that holds the folder or a GPU"


BY_HAND = pytest.mark.skipif(LONGER == 1, reason="FUZZ=10 runs it; the same with two processes runs always")


@pytest.mark.parametrize("processes", [pytest.param(1, marks=BY_HAND), 2])
def test_shared_prefixes_resumed_in_the_second_epoch_end_the_same(
    tiny_model: Path, examples: Path, tmp_path: Path, shared: Path, processes: int
):
    launch = LAUNCH if processes == 1 else [*LAUNCH[:-1], "configs/accelerate/cpu_ddp.yaml"]
    more = {**SHARED, "per_device_train_batch_size": 4 // processes}
    whole = shared
    if processes == 2:
        whole = tmp_path / "whole"
        result = run(settings(tiny_model, examples, whole, **more), launch)
        assert result.returncode == 0, result.stderr
        manifests = [manifest_of(f) for f in (shared, whole)]
        assert manifests[0].key == manifests[1].key and manifests[1].facts.steps == 16
        losses = [m.facts.metrics["eval_loss"] for m in manifests]
        assert losses[0] == pytest.approx(losses[1], rel=1e-3), "the same batches, shared by two"
    values = settings(tiny_model, examples, tmp_path / "killed", **more)
    reached = tmp_path / "killed" / "checkpoint-10" / "trainer_state.json"  # 8 steps are an epoch
    if processes == 1:
        kill_when(command(values, launch), reached.exists)
    else:
        terminate_one_of_two(command(values, launch), reached.exists)
        complete = last_complete_checkpoint(tmp_path / "killed")
        assert complete is not None and step_of(complete) >= 8
    assert not (tmp_path / "killed" / "manifest.json").exists(), "the kill came too late to test anything"
    result = run(values, launch)
    assert result.returncode == 0 and "resuming from" in result.stderr, result.stderr
    assert left_by(tmp_path / "killed") == left_by(whole), "bit for bit what was left where nothing interrupted"
