"""The stage that measures: which arms answer which trials, and how many tokens that takes."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from experiment.arms import Arm
from experiment.checks import HELD_OUT
from experiment.file import ArmMeasurement
from experiment.planned import PlannedStage, TokenCount
from store.evaluation import ContextGroup, EngineSettings, EvalConfig, Measurement, ModelSettings
from task.contexts import ChoiceContext
from task.errors import InputError
from task.prompts import DEFAULT, PROMPTS, Measure, Variant, longest_report

if TYPE_CHECKING:
    from experiment.plan import Run


def evaluation_stage(run: Run) -> PlannedStage:
    """All measurements of a run."""
    used = [arm for wanted in run.experiment.measurements for arm in run.asked(wanted)]
    needs = dict.fromkeys(arm.made_by for arm in used if arm.made_by)
    return _measure(run, run.experiment.measurements, "evaluate", tuple(needs))


def measure_before_stage(run: Run, arm: str) -> PlannedStage:
    """The decisions of one arm, whose weights are taught to another; the evaluation finds them done."""
    wanted = [
        m
        for m in run.experiment.measurements
        if (m.arm, m.measure, m.variant) == (arm, "decisions", DEFAULT["decisions"])
    ]
    needs = (f"{arm}.sft",) if arm in run.experiment.trainings else ()
    return _measure(run, wanted, f"{arm}.decisions", needs)


def _measure(run: Run, asked: Sequence[ArmMeasurement], name: str, needs: tuple[str, ...]) -> PlannedStage:
    measurements: dict[tuple[str, Measure, Variant, bool], Measurement] = {}
    used: dict[str, str | None] = {}
    size = _Size()
    for wanted in asked:
        for arm in run.asked(wanted):
            key = (arm.name, wanted.measure, wanted.variant, wanted.constrained)
            if key in measurements:
                raise InputError(
                    f"measurements: {wanted.measure} of {arm.name!r} are asked for twice; leave one of the entries out"
                )
            measurements[key] = _measurement(run, wanted, arm)
            used[arm.name] = run.adapter(arm)
            for group in measurements[key].contexts:
                for context in run.groups[group.name]:
                    if group.only is None or context.name in group.only:
                        size.add(run.tokens, wanted, context)
    experiment, simulated = run.experiment, run.experiment.engine.name == "simulated"
    tells = any(m.tells_weights for m in asked)
    config = EvalConfig(
        seed=run.seed,
        output=str(run.folder.trials),
        engine=_with_lengths(experiment.engine, size) if run.model else experiment.engine,
        model=ModelSettings(**run.model.model_dump(include={*ModelSettings.model_fields})) if run.model else None,
        arms=used,
        planted={a: p for a, p in experiment.planted.items() if a in used} if simulated else {},
        planted_weights=str(run.folder.planted_weights) if simulated else None,
        told_weights=str(run.folder.told_weights) if tells else None,
        wording=run.wording,
        measurements=list(measurements.values()),
    )
    words = f"{size.trials:,} trials in {len(measurements)} files from {len(used)} arms"
    notes = f"no prompt is longer than {size.longest_prompt} tokens, no reply than {size.longest_reply}"
    return PlannedStage(
        name,
        "evaluate",
        config.model_dump(mode="json"),
        run.folder.trials,
        words,
        size.tokens,
        size.unique,
        notes if run.model else "",
        needs,
    )


def _with_lengths(engine: EngineSettings, size: _Size) -> EngineSettings:
    """The engine with the counted lengths, where the experiment does not say any."""
    lengths = {"max_prompt_tokens": size.longest_prompt, "max_reply_tokens": size.longest_reply}
    return engine.model_copy(update={k: v for k, v in lengths.items() if getattr(engine, k) is None})


def _measurement(run: Run, wanted: ArmMeasurement, arm: Arm) -> Measurement:
    """One entry of an evaluation's configuration: an arm, measured as the experiment asks."""
    groups = []
    for group in wanted.contexts:
        folded = run.experiment.folded(wanted.arm)
        name = folded.contexts if folded and group == HELD_OUT else group
        only = arm.held_out if group == HELD_OUT else None
        if (
            arm.context
            and run.by_name[arm.name].training
            and group == run.experiment.trainings[str(arm.training)].contexts
        ):
            only = [arm.context]
        groups.append(ContextGroup(name=name, file=str(run.folder.contexts_file(name)), only=only))
    return Measurement(**wanted.model_dump(exclude={"arm", "contexts", "kept", "cuts"}), arm=arm.name, contexts=groups)


@dataclass
class _Size:
    """Trials and tokens of an evaluation, added up context by context."""

    trials: int = 0
    tokens: int = 0
    unique: int = 0
    longest_prompt: int = 0
    longest_reply: int = 0

    def add(self, count: TokenCount, wanted: ArmMeasurement, context: ChoiceContext) -> None:
        """Add a context's trials; a report after the arm's own choice asks for that choice first.

        Beside constrained reports a few free ones are asked for.
        """
        rows = wanted.rows_per_context + (wanted.free_samples if wanted.constrained else 0)
        asked: list[tuple[Measure, Variant]] = [(wanted.measure, wanted.variant)]
        if PROMPTS[wanted.measure][wanted.variant].follow_up is not None:
            asked.append(("decisions", DEFAULT["decisions"]))
        self.trials += wanted.rows_per_context
        for measure, variant in asked:
            found = count(measure, variant, context)
            self.tokens += rows * (found.prompt + found.reply)
            self.unique += found.shared + rows * (found.prompt - found.shared + found.reply)
            self.longest_prompt = max(self.longest_prompt, found.longest_prompt)
            self.longest_reply = max(self.longest_reply, found.longest_reply)
        if wanted.constrained:
            # Within a grammar a reply may be spelled in any tokens that make up the text, single bytes even.
            self.longest_reply = max(self.longest_reply, longest_report(context))
