"""Where the stages of a run stand: one answer for the local launcher, for `--status` and for SLURM.

A stage is judged by what its folder says of itself (`manifest.json`, `started.json`), by the settings that the plan now
has for it, and by the content of the files that it was made from. File times and the place of the run's folder play no
part, so a copied or moved run is judged the same.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, Literal

from pydantic import JsonValue

from store.checkpoints import ADAPTER, last_complete_checkpoint, steps_done
from store.evaluation import EvalConfig, Measurement
from store.files import hash_file
from store.inside import AttributeConfig, PatchConfig
from store.inside_inputs import attribution_folders, attribution_inputs, patching_folders, patching_inputs
from store.lora import adapter_hash
from store.models import fingerprint, template_hash
from store.paths import project_file
from store.run import RunFolder, RunRecord
from store.shards import written_shards
from store.stages import Origin, begun, differences, read_origin
from store.state_inputs import analysis_inputs

Kind = Literal["examples", "sft", "learn", "derive", "evaluate", "attribute", "patch", "analyse", "track"]
"""Which command a stage is."""

TABLES = ("agreement", "weights")
"""Tables of an analysis, by the stem of their file."""

MADE_FROM = ("contexts", "weights", "wording", "rehearse_weights", "train_file", "validation_file")
"""Files that examples and trainings are made from, by the keys of their settings and of `depends_on`."""

ELSEWHERE = ("env", "run_name", "report_to")
"""Settings of a training that say where its curves go."""


@dataclass(frozen=True)
class StagePlan:
    """One command of a run as it is planned.

    Attributes:
        name: Unique in the run; names the configuration file.
        kind: Which command it is.
        config: What the command reads (empty for what reads a run's folder alone).
        output: Folder that it fills.
    """

    name: str
    kind: Kind
    config: dict[str, Any]
    output: Path


@dataclass(frozen=True)
class StageState:
    """Where a stage stands; `detail` says how far it has come, or in what it differs from the plan."""

    name: Literal["finished", "stale", "interrupted", "missing"]
    detail: str = ""

    def __str__(self) -> str:
        return f"{self.name}: {self.detail}" if self.detail else self.name


def stage_state(run: RunFolder, record: RunRecord, stage: StagePlan) -> StageState:
    """Where a stage stands, by what is on disk; reads only.

    Args:
        run: The run.
        record: What the run consists of by the experiment as it is now.
        stage: The stage as it is planned now.
    """
    if stage.kind == "evaluate":
        return _evaluation(EvalConfig.model_validate(stage.config))
    if stage.kind == "attribute" or stage.kind == "patch":
        return _looks(stage)
    found = begun(stage.output)
    if found is None:
        return StageState("missing")
    if changes := list(_changes(run, record, stage)):
        more = f" and {len(changes) - 3} more" if len(changes) > 3 else ""
        return StageState("stale", f"{'; '.join(changes[:3])}{more}")
    if found == "interrupted":
        return StageState("interrupted", _how_far(stage.output) if stage.kind == "sft" else "")
    return StageState("finished")


def _changes(run: RunFolder, record: RunRecord, stage: StagePlan) -> Iterator[str]:
    """In what a folder differs from its plan: settings first, then the content of files."""
    origin = read_origin(stage.output)
    if stage.kind == "analyse":
        yield from differences(origin.depends_on, analysis_inputs(run, record))
        return
    if stage.kind == "track":
        yield from differences(origin.depends_on.get("files"), tracked_files(run), "files")
        return
    base = project_file(str(stage.config.get("model_name_or_path", "")))
    model = fingerprint(base) if (base / "config.json").is_file() else None
    if origin.settings is not None:
        was, now = portable(origin.settings, stage.output), portable(stage.config, stage.output)
        if model is not None and model == origin.depends_on.get("base"):
            was["model_name_or_path"] = now["model_name_or_path"]  # the same model in another place is the same
        yield from differences(was, now)
    files = {key: Path(stage.config[key]) for key in MADE_FROM if stage.config.get(key)}
    for key, file in files.items():
        if file.is_file() and hash_file(file) != origin.depends_on.get(key):
            yield f"made from another {file}"
    yield from _other_trials_or_adapters(origin, stage)
    for key in ("adapter", "frozen_adapter"):
        start = Path(stage.config.get(key) or "")
        if (start / ADAPTER).is_file() and adapter_hash(start) != origin.depends_on.get(key):
            yield f"made from another adapter in {start}"
    if model is not None and model != origin.depends_on.get("base", model):
        yield f"made from another base model in {base}"
    if base.is_dir() and (words := template_hash(base)) != origin.depends_on.get("chat_template", words):
        yield f"made with another chat template of {base}"


def _other_trials_or_adapters(origin: Origin, stage: StagePlan) -> Iterator[str]:
    """In what the trials of measured weights, or the adapters of a sum, differ from those that were read."""
    trials = Path(stage.config.get("trials") or "")
    if trials.name and begun(trials) == "finished" and read_origin(trials).key != origin.depends_on.get("trials"):
        yield f"made from other trials in {trials}"
    terms: Any = origin.depends_on.get("terms", [])
    for term, was in zip(stage.config.get("terms", []), terms, strict=False):
        if (Path(term["adapter"]) / ADAPTER).is_file() and adapter_hash(Path(term["adapter"])) != was["adapter"]:
            yield f"made from another adapter in {term['adapter']}"


def portable(settings: Mapping[str, Any], output: Path) -> dict[str, Any]:
    """Settings without what differs between places: the run's folder in paths becomes `RUN`, however it is written.

    Args:
        settings: Of a stage; `output` or `output_dir` is the path of its folder.
        output: That folder, which tells how much of the path lies within the run.
    """
    named = Path(str(settings.get("output") or settings["output_dir"]))
    depth = len(output.parts) - len(_root_of(output).parts)
    root = named.parents[depth - 1]
    kept = {key: value for key, value in settings.items() if key not in ELSEWHERE}
    return {key: _within(value, str(root)) for key, value in kept.items()}


def _root_of(output: Path) -> Path:
    """The run's folder: above `examples/ARM`, `adapters/ARM` and `trials`."""
    return output.parent if output.name == "trials" else output.parent.parent


def _within(value: Any, root: str) -> Any:
    if isinstance(value, str) and value.startswith(f"{root}/"):
        return f"RUN{value.removeprefix(root)}"
    if isinstance(value, dict):
        return {key: _within(item, root) for key, item in value.items()}
    return [_within(item, root) for item in value] if isinstance(value, list) else value


def _how_far(folder: Path) -> str:
    checkpoint = last_complete_checkpoint(folder)
    if checkpoint is None:
        return "before its first checkpoint"
    step, last = steps_done(checkpoint)
    return f"checkpoint at step {step} of {last}"


def _evaluation(config: EvalConfig) -> StageState:
    folders = [(measurement, config.folder_of(measurement)) for measurement in config.measurements]
    states = {folder: begun(folder) for _, folder in folders}
    for measurement, folder in folders:
        if states[folder] and (changes := _differing(folder, known_inputs(config, measurement))):
            return StageState("stale", f"{measurement.arm}/{folder.name}: {'; '.join(changes[:3])}")
    if all(state == "finished" for state in states.values()):
        return StageState("finished")
    if not any(states.values()):
        return StageState("missing")
    shards = {folder: config.engine.shards(measurement.rows()) for measurement, folder in folders}
    done = sum(n if states[f] == "finished" else len(written_shards(f)) for f, n in shards.items())
    return StageState("interrupted", f"{done} of {sum(shards.values())} shards")


def _looks(stage: StagePlan) -> StageState:
    """Of attribution or patching: by the folders of all arms."""
    planned = _planned_looks(stage)
    states = {folder: begun(folder) for folder in planned}
    for folder, inputs in planned.items():
        if states[folder] and (changes := _differing(folder, inputs())):
            return StageState("stale", f"{folder.relative_to(stage.output)}: {'; '.join(changes[:3])}")
    if all(state == "finished" for state in states.values()):
        return StageState("finished")
    if not any(states.values()):
        return StageState("missing")
    done = sum(state == "finished" for state in states.values())
    return StageState("interrupted", f"{done} of {len(planned)} folders")


def _planned_looks(stage: StagePlan) -> dict[Path, Callable[[], dict[str, JsonValue]]]:
    """The folders of attribution or patching, and how to tell what each depends on, once its files are there."""
    if stage.kind == "attribute":
        scored = AttributeConfig.model_validate(stage.config)
        return {f.path: partial(attribution_inputs, scored, f) for f in attribution_folders(scored)}
    patched = PatchConfig.model_validate(stage.config)
    return {path: partial(patching_inputs, patched, arm) for arm, path in patching_folders(patched).items()}


def _differing(folder: Path, now: dict[str, JsonValue]) -> list[str]:
    """In what a folder differs from its plan, as far as that can be told without loading the model."""
    old = read_origin(folder).depends_on
    return list(differences({key: old.get(key) for key in now}, now))


def known_inputs(config: EvalConfig, measurement: Measurement) -> dict[str, JsonValue]:
    """What a trial file depends on by the keys of its manifest, as far as it is known without loading the model."""
    adapter = config.arms[measurement.arm]
    inputs: dict[str, Any] = config.inputs_of(measurement)
    if config.engine.name == "simulated":
        planted = config.planted[measurement.arm].model_dump(mode="json")
        return {**inputs, "planted_weights": hash_file(Path(str(config.planted_weights))), "planted": planted}
    assert config.model is not None  # EvalConfig has checked it
    inputs |= config.model_inputs()
    if adapter and (Path(adapter) / ADAPTER).is_file():
        inputs["adapter"] = adapter_hash(Path(adapter))
    if ((base := project_file(config.model.name)) / "config.json").is_file():
        inputs |= {"base": fingerprint(base), "chat_template": template_hash(base)}
    return inputs


def tracked_files(run: RunFolder) -> dict[str, str]:
    """Hash of each file of an analysis that goes to W&B, by name: figures and tables."""
    files = [*sorted((run.analysis / "figures").glob("*.png")), *(run.analysis / f"{name}.csv" for name in TABLES)]
    return {file.name: hash_file(file) for file in files if file.is_file()}
