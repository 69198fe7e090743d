"""The stages that look inside arms: which adapters, on which contexts, and how many tokens that takes."""

from __future__ import annotations

from collections.abc import Sequence
from math import ceil, log2
from pathlib import Path
from typing import TYPE_CHECKING, Any

from experiment.adapters import layer_count
from experiment.arms import Arm, alone_name
from experiment.inside_settings import Inside, Patching
from experiment.planned import PlannedStage
from store.evaluation import ContextGroup, ModelSettings
from store.inside import AttributeConfig, InsideArm, PatchConfig
from task.prompts import DEFAULT, Measure

if TYPE_CHECKING:
    from experiment.plan import Run

MATRICES = 7
"""Matrices of a layer that get an adapter, by default."""

MEASURES: tuple[Measure, ...] = ("decisions", "reports")


def attribute_stage(run: Run, inside: Inside) -> PlannedStage:
    """Scores of every row of the arms' adapters, in both tasks."""
    wanted = inside.attribution
    arms = _arms(run, wanted.arms)
    config = AttributeConfig(**_common(run, inside, arms), steps=wanted.steps, random=wanted.random)
    passes = wanted.steps + 1  # and one to answer
    more = f", {wanted.random} random adapters each" if wanted.random else ""
    return PlannedStage(
        "attribute",
        "attribute",
        config.model_dump(mode="json"),
        run.folder.inside,
        f"{len(arms)} adapters{more}, {wanted.prompts} prompts a context and task x {wanted.steps} steps",
        wanted.prompts * passes * (1 + wanted.random) * sum(_tokens(run, config.arms[arm.name]) for arm in arms),
        needs=_needs(run, arms),
    )


def patch_stage(run: Run, inside: Inside, wanted: Patching) -> PlannedStage:
    """How much of a task is left with a few matrices of an adapter."""
    assert run.model is not None  # the experiment has checked that trainings have a model
    arms = _arms(run, wanted.arms)
    config = PatchConfig(**_common(run, inside, arms), random=wanted.random)
    matrices = MATRICES * layer_count(run.model, Path(str(run.experiment.model)).stem)
    passes = 2 + (2 + wanted.random) * (ceil(log2(matrices)) + 1)  # both ends, and 1, 2, 4 ... matrices of each order
    return PlannedStage(
        "patch",
        "patch",
        config.model_dump(mode="json"),
        run.folder.inside,
        f"{len(arms)} adapters, both tasks' orders and {wanted.random} random ones",
        inside.attribution.prompts * passes * sum(_tokens(run, config.arms[arm.name]) for arm in arms),
        needs=(*_needs(run, arms), "attribute"),
    )


def _arms(run: Run, names: Sequence[str]) -> list[Arm]:
    return list({arm.name: arm for name in names for arm in run.arms[name]}.values())


def _common(run: Run, inside: Inside, arms: Sequence[Arm]) -> dict[str, Any]:
    """What both commands are told."""
    assert run.model is not None  # the experiment has checked that trainings have a model
    return {
        "seed": run.seed,
        "output": str(run.folder.inside),
        "model": ModelSettings(**run.model.model_dump(include={*ModelSettings.model_fields})),
        "arms": {arm.name: _inside_arm(run, arm, inside.attribution.contexts) for arm in arms},
        "prompts": inside.attribution.prompts,
        "batch_size": inside.attribution.batch_size,
        "report_tokens": run.experiment.engine.report_tokens,
        "wording": run.wording,
    }


def _inside_arm(run: Run, arm: Arm, groups: Sequence[str]) -> InsideArm:
    """An arm's adapter, or the part of it above a frozen one, and its contexts."""
    training = run.experiment.trainings.get(str(arm.training))
    frozen = training.on_top_of if training else None
    contexts = [ContextGroup(name=group, file=str(run.folder.contexts_file(group))) for group in groups]
    if training and arm.context:
        own = str(run.folder.contexts_file(training.contexts))
        contexts = [ContextGroup(name=training.contexts, file=own, only=[arm.context])]
    return InsideArm(
        adapter=str(run.folder.adapter(alone_name(arm.name) if frozen else arm.name)),
        frozen=str(run.folder.adapter(frozen)) if frozen else None,
        contexts=contexts,
    )


def _needs(run: Run, arms: Sequence[Arm]) -> tuple[str, ...]:
    """The stages whose adapters are read: those that make the arms, or the terms of a sum with a frozen one."""
    found: dict[str, None] = {}
    for arm in arms:
        on_top = arm.training is not None and arm.terms
        read = [run.by_name[name] for name in arm.terms] if on_top else [arm]
        found |= {stage: None for one in read if (stage := one.made_by)}
    return tuple(found)


def _tokens(run: Run, arm: InsideArm) -> int:
    """Tokens of one prompt with its answer in each context, for both tasks."""
    total = 0
    for group in arm.contexts:
        for context in run.groups[group.name]:
            if group.only is None or context.name in group.only:
                counts = [run.tokens(measure, DEFAULT[measure], context) for measure in MEASURES]
                total += sum(count.prompt + count.reply for count in counts)
    return total
