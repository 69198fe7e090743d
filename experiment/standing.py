"""Where the stages of a run stand: finished, interrupted at some point, made from other inputs, or not begun."""

from __future__ import annotations

import contextlib
import io
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from eval.runner import list_work
from experiment.plan import PlannedStage, Run
from store.checkpoints import last_complete_checkpoint
from store.evaluation import EvalConfig
from store.files import hash_file, read_json
from store.stages import MANIFEST, STARTED

State = Literal["finished", "stale", "interrupted", "not begun"]

WEIGHTS = "adapter_model.safetensors"


@dataclass(frozen=True)
class Standing:
    """Where a stage stands; `detail` says how far it has come, or what it was made from."""

    state: State
    detail: str = ""

    def __str__(self) -> str:
        return f"{self.state}: {self.detail}" if self.detail else self.state


def standing(run: Run, stage: PlannedStage) -> Standing:
    """Where a stage stands by what its folder holds; reads only."""
    if stage.kind == "evaluate":
        return _evaluation(stage)
    if stage.kind == "analyse":
        return _analysis(run, stage)
    if (stage.output / MANIFEST).is_file():
        return _stale(stage) or Standing("finished")
    if not (stage.output / STARTED).is_file():
        return Standing("not begun")
    return Standing("interrupted", _steps(stage.output) if stage.kind == "sft" else "")


def _stale(stage: PlannedStage) -> Standing | None:
    """Whether a finished training learned from other files than those that are there now."""
    made_from = read_json(stage.output / MANIFEST)["depends_on"]
    files = {key: stage.config.get(key) for key in ("train_file", "validation_file")}
    files["adapter"] = f"{start}/{WEIGHTS}" if (start := stage.config.get("adapter")) else None
    for key, file in files.items():
        if file and made_from.get(key) and Path(file).is_file() and hash_file(Path(file)) != made_from[key]:
            return Standing("stale", f"made from another {file}")
    return None


def _steps(folder: Path) -> str:
    with contextlib.redirect_stdout(io.StringIO()):  # which checkpoints are passed over is said when training resumes
        checkpoint = last_complete_checkpoint(folder)
    if checkpoint is None:
        return "before its first checkpoint"
    state = read_json(checkpoint / "trainer_state.json")
    return f"checkpoint at step {state['global_step']} of {state['max_steps']}"


def _evaluation(stage: PlannedStage) -> Standing:
    if not stage.output.is_dir():
        return Standing("not begun")
    config = EvalConfig.model_validate(stage.config)
    files = {arm: Path(adapter) / WEIGHTS for arm, adapter in config.arms.items() if adapter}
    adapters = {arm: hash_file(file) for arm, file in files.items() if file.is_file()}
    works, done, begun, finished = list_work(config), 0, 0, 0
    for work in works:
        arm, manifest = work.measurement.arm, work.folder / MANIFEST
        if not manifest.is_file():
            begun += (work.folder / STARTED).is_file()
            done += len(work.written())
            continue
        if arm in adapters and adapters[arm] != read_json(manifest)["depends_on"].get("adapter"):
            return Standing("stale", f"{work.folder} was measured with another adapter of {arm}")
        finished += 1
        done += work.shards
    if finished == len(works):
        return Standing("finished")
    if not begun + done:
        return Standing("not begun")
    return Standing("interrupted", f"{done} of {sum(work.shards for work in works)} shards")


def _analysis(run: Run, stage: PlannedStage) -> Standing:
    found = stage.output / "summary.json"
    if not found.is_file():
        return Standing("not begun")
    now = {
        path.parent.relative_to(run.folder).as_posix(): read_json(path)["key"]
        for path in run.folder.glob(f"trials/*/*/{MANIFEST}")
    }
    if read_json(found)["trial_files"] != now:
        return Standing("stale", "made from other trial files")
    if found.stat().st_mtime < (run.folder / "run.json").stat().st_mtime:
        return Standing("stale", "made before the experiment was changed")
    return Standing("finished")
