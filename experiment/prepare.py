"""Begin a run: write what its stages read."""

from __future__ import annotations

import shutil
from collections.abc import Sequence
from typing import Any

from experiment.plan import PlannedStage, Run
from store.contexts import save_contexts
from store.files import hash_file, write_text
from store.manifests import InputFacts
from store.paths import project_file
from store.run import write_run
from store.stages import Stage
from store.weights import save_weights
from store.yaml_files import dump_yaml
from task.errors import InputError
from task.weights import sample_weights


def check_settings(stages: Sequence[PlannedStage]) -> None:
    """Refuse training settings that are unknown or not honoured before the first stage starts, not hours later."""
    configs = [stage.config for stage in stages if stage.kind == "sft"]
    if not configs:
        return
    from train.arguments import check_honoured, known_arguments  # loads torch and TRL, which a simulation does not need

    known = {"env", *known_arguments()}
    for config in configs:
        if unknown := [key for key in config if key not in known]:
            raise InputError(f"sft: unknown setting {unknown[0]!r}; see: python train/sft.py --help")
        check_honoured(config)


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
        "targets": experiment.target_contexts,
    }
    wording = project_file(experiment.wording) if experiment.wording else None
    if wording is not None:
        inputs["wording"] = hash_file(wording)
    targets = run.groups[experiment.target_contexts]
    others = [c for name, group in run.groups.items() if name != experiment.target_contexts for c in group]
    target_weights = {c.name: sample_weights(run.seed, "target_weights", c) for c in targets}
    stage = Stage(folder.inputs, inputs, overwrite)
    if not stage.finished:
        for name, contexts in run.groups.items():
            save_contexts(contexts, folder.contexts_file(name))
        save_weights(target_weights, folder.target_weights)
        if wording is not None:
            shutil.copyfile(wording, folder.wording)
        if experiment.engine.name == "simulated":
            native = {c.name: sample_weights(run.seed, "native_weights", c) for c in others}
            save_weights({**target_weights, **native}, folder.planted_weights)
        stage.finish(InputFacts(counts={name: len(contexts) for name, contexts in run.groups.items()}))
    if any(m.tells_weights for m in experiment.measurements):
        drawn = {c.name: sample_weights(run.seed, "told_weights", c) for c in others}
        save_weights({**target_weights, **drawn}, folder.told_weights)
