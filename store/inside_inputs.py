"""Which folders attribution and patching fill, and what each depends on; torch-free, so that a plan can tell it."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Any, NamedTuple

from pydantic import JsonValue

from store.checkpoints import ADAPTER
from store.files import hash_file
from store.inside import (
    TASKS,
    AttributeConfig,
    InsideConfig,
    PatchConfig,
    Task,
    patching_folder,
    scores_folder,
    shown_trials,
)
from store.lora import adapter_hash
from store.models import fingerprint, template_hash
from store.paths import project_file
from store.stages import begun, read_origin


class ScoresFolder(NamedTuple):
    """Scores of an arm in a task; of its random adapter number `draw` where that is above 0."""

    path: Path
    arm: str
    task: Task
    draw: int


def attribution_folders(config: AttributeConfig) -> list[ScoresFolder]:
    """The folders that an attribution fills, arm by arm."""
    inside, draws = Path(config.output), range(config.random + 1)
    return [
        ScoresFolder(scores_folder(inside, arm, task, draw), arm, task, draw)
        for arm in config.arms
        for draw in draws
        for task in TASKS
    ]


def attribution_inputs(config: AttributeConfig, folder: ScoresFolder) -> dict[str, JsonValue]:
    """What scores depend on, as far as the files that are there tell it; see `known_inputs`."""
    return {
        **known_inputs(config, folder.arm, [folder.task]),
        "command": "inside.attribute",
        "task": folder.task,
        "draw": folder.draw,
        "steps": config.steps,
    }


def patching_inputs(config: PatchConfig, arm: str) -> dict[str, JsonValue]:
    """What the patching of an arm depends on, likewise: its scores, too."""
    scores = {task: scores_folder(Path(config.output), arm, task) for task in TASKS}
    return {
        **known_inputs(config, arm, TASKS),
        "command": "inside.patch",
        "random": config.random,
        "scores": {task: read_origin(path).key for task, path in scores.items() if begun(path) == "finished"},
    }


def patching_folders(config: PatchConfig) -> dict[str, Path]:
    """The folder of each arm that a patching fills."""
    return {arm: patching_folder(Path(config.output), arm) for arm in config.arms}


def known_inputs(config: InsideConfig, arm: str, tasks: list[Task] | tuple[Task, ...]) -> dict[str, JsonValue]:
    """What is asked of an arm, and the model and the adapters that are there; the number of prompts a pass is left out.

    Answers are the same, but for rounding, whatever is computed together.
    """
    settings = config.arms[arm]
    inputs: dict[str, Any] = {
        "arm": arm,
        "seed": config.seed,
        "prompts": config.prompts,
        "contexts": [[group.name, hash_file(project_file(group.file)), group.only] for group in settings.contexts],
        "words": {task: _first_prompt(config, arm, task) for task in tasks},
        "wording": None if config.wording is None else hash_file(project_file(config.wording)),
        "dtype": config.model.dtype,
        "template": config.model.template,
        "frozen": None,
    }
    if "reporting" in tasks:
        inputs["report_tokens"] = config.report_tokens
    for name, adapter in (("adapter", settings.adapter), ("frozen", settings.frozen)):
        if adapter is not None and (Path(adapter) / ADAPTER).is_file():
            inputs[name] = adapter_hash(Path(adapter))
    if ((base := project_file(config.model.name)) / "config.json").is_file():
        inputs |= {"base": fingerprint(base), "chat_template": template_hash(base)}
    return inputs


def _first_prompt(config: InsideConfig, arm: str, task: Task) -> str:
    """Hash of the first prompt: the same trials in other words are other prompts."""
    [first, *_] = shown_trials(config, task, config.arms[arm].load()[0])
    return hashlib.sha256(json.dumps(first.prompt).encode()).hexdigest()[:16]
