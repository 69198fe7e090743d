"""Begin a run: write what its stages read."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

from experiment.plan import Run
from store.contexts import save_contexts
from store.files import hash_file, write_text
from store.manifests import InputFacts
from store.models import check_there
from store.paths import project_file
from store.run import write_run
from store.stages import Stage
from store.weights import save_weights
from store.yaml_files import dump_yaml, read_yaml
from task.errors import InputError, shown
from task.weights import sample_weights


def check_settings(run: Run, launch: Path | None = None) -> None:
    """Refuse what no training would take before the first stage starts, not hours later.

    Args:
        run: The run.
        launch: Launch configuration of its trainings; None for the one that this machine gets.

    Raises:
        InputError: The model's folder is not there, a setting of a training or of the launch configuration is unknown
            or has a value that cannot be.
    """
    if run.model is not None:
        check_there(run.model.name)
    trainings = [stage for stage in run.stages if stage.kind == "sft"]
    if not trainings:
        return
    if launch is not None:
        check_launch_file(project_file(launch))
    from train.arguments import check_training  # loads torch and TRL, which a simulation does not need

    for stage in trainings:
        try:
            check_training(stage.config)
        except InputError as error:
            raise InputError(f"settings of {stage.name}: {error}") from None


def check_launch_file(path: Path) -> None:
    """Refuse a launch configuration that accelerate would not take.

    Raises:
        InputError: With what accelerate says of it, or a number of processes that is none.
    """
    values = read_yaml(path)
    if not isinstance(values, dict):
        raise InputError(f"{path}: holds no settings; give a file of configs/accelerate/")
    for name in ("num_processes", "num_machines"):
        if (count := values.get(name, 1)) is not None and (type(count) is not int or count < 1):
            raise InputError(f"{path}: {name} {shown(count)}: give a whole number, at least 1")
    from accelerate.commands.config.config_args import load_config_from_file

    try:
        load_config_from_file(str(path))
    except (ValueError, TypeError, LookupError, AttributeError) as error:
        raise InputError(
            f"{path}: accelerate does not take it ({shown(str(error), 300)}); see configs/accelerate/"
        ) from None


def prepare(run: Run, overwrite: bool) -> None:
    """Write what the stages read: contexts and weights (once), the configuration of each stage, `run.json`."""
    write_inputs(run, overwrite)
    for stage in run.stages:
        if stage.config:
            path = run.folder.stage_config(stage.name)
            path.parent.mkdir(exist_ok=True)
            write_text(path, dump_yaml(stage.config))
    write_run(run.folder.path, run.record)


def write_inputs(run: Run, overwrite: bool) -> None:
    """Write the contexts, the weights and the wording file of a run, and their manifest.

    Raises:
        InputError: The run was begun with other contexts, or in another wording.
    """
    experiment, folder = run.experiment, run.folder
    inputs: dict[str, Any] = {
        "seed": run.seed,
        "contexts": {name: [repr(c) for c in contexts] for name, contexts in run.groups.items()},
        # One group is said by its name, as in runs that were begun when there could be no more.
        "targets": groups[0] if len(groups := experiment.target_contexts) == 1 else groups,
    }
    redrawn = any(training.labels == "redrawn" for training in experiment.trainings.values())
    if redrawn:
        inputs["redrawn"] = True
    wording = project_file(experiment.wording) if experiment.wording else None
    if wording is not None:
        inputs["wording"] = hash_file(wording)
    targets = [c for name in experiment.target_contexts for c in run.groups[name]]
    others = [c for name, group in run.groups.items() if name not in experiment.target_contexts for c in group]
    target_weights = {c.name: sample_weights(run.seed, "target_weights", c) for c in targets}
    stage = Stage(folder.inputs, inputs, overwrite)
    if not stage.finished:
        for name, contexts in run.groups.items():
            save_contexts(contexts, folder.contexts_file(name))
        save_weights(target_weights, folder.target_weights)
        if redrawn:
            save_weights(
                {c.name: sample_weights(run.seed, "redrawn_weights", c) for c in targets}, folder.redrawn_weights
            )
        if wording is not None:
            shutil.copyfile(wording, folder.wording)
        if experiment.engine.name == "simulated":
            native = {c.name: sample_weights(run.seed, "native_weights", c) for c in others}
            save_weights({**target_weights, **native}, folder.planted_weights)
        stage.finish(InputFacts(counts={name: len(contexts) for name, contexts in run.groups.items()}))
    if any(m.tells_weights for m in experiment.measurements):
        drawn = {c.name: sample_weights(run.seed, "told_weights", c) for c in others}
        save_weights({**target_weights, **drawn}, folder.told_weights)
