"""How a training went: its decisions and reports at every step that was kept, from where it started to its end.

Nothing is chosen: every kept step that was measured is a point. Step 0 is the arm that the training started from, the
last point is the finished training, each where it was measured on the same contexts.
"""

from __future__ import annotations

from collections.abc import Iterator

from analysis.study.results import RunResults
from analysis.study.states import Series, series_of, together
from store.curves_summary import StepSummary, TrajectorySummary
from store.run import BASE_ARM
from task.names import AT


def trajectories_of(results: RunResults) -> dict[str, TrajectorySummary]:
    """The trajectory of every training of which steps were kept and measured, by `TRAINING/group`."""
    found = {}
    for training, arms in _trainings(results).items():
        for group in results.groups:
            for line in together(results, {arm: _states(results, arm) for arm in arms}, group):
                if told := _trajectory(results, training, line, group):
                    name = training if len(line) == len(arms) else line[0]
                    found[f"{name}/{group}"] = told
    return found


def _trainings(results: RunResults) -> dict[str, list[str]]:
    """The arms of each training of which steps were kept: one, or its folds."""
    found: dict[str, list[str]] = {}
    for name, arm in results.record.arms.items():
        whole = name.partition(AT)[0]
        if arm.step is not None and whole not in (arms := found.setdefault(arm.training or whole, [])):
            arms.append(whole)
    return found


def _trajectory(results: RunResults, training: str, arms: list[str], group: str) -> TrajectorySummary | None:
    """The trajectory of the arms of one training on a group; None where no kept step was measured there."""
    kept = _kept(results, arms)
    series = series_of(results, [arm for states in kept.values() for arm in states], group, arms)
    if series is None:
        return None
    base = series.state([BASE_ARM])
    return TrajectorySummary(
        training=training,
        teach=results.record.arms[arms[0]].teach if arms[0] in results.record.arms else None,
        contexts=group,
        n_contexts=len(series.members),
        points=[*_points(series, {**kept, **_ends(results, series, arms)})],
        off_the_shelf=base.told if base else None,
    )


def _states(results: RunResults, arm: str) -> list[str]:
    """The kept steps of an arm, as arms."""
    record = results.record.arms
    return [name for name, made in record.items() if made.step is not None and name.partition(AT)[0] == arm]


def _kept(results: RunResults, arms: list[str]) -> dict[int, list[str]]:
    """The arms of each kept step."""
    record = results.record.arms
    steps = {arm.step for name, arm in record.items() if arm.step is not None and name.partition(AT)[0] in arms}
    return {step: [name for arm in arms if (name := f"{arm}{AT}{step}") in record] for step in sorted(steps)}


def _ends(results: RunResults, series: Series, arms: list[str]) -> dict[int, list[str]]:
    """The arms at the first and at the last step, where they were measured and the last step is known."""
    starts = dict.fromkeys((made.start if (made := results.record.arms.get(arm)) else None) or BASE_ARM for arm in arms)
    facts = [results.trainings[arm] for arm in arms if arm in results.trainings]
    steps = [facts.kept.step if facts.kept else facts.steps for facts in facts]
    ends = {0: list(starts), **({max(steps): arms} if len(steps) == len(arms) else {})}
    return {step: states for step, states in ends.items() if series.state(states)}


def _points(series: Series, states: dict[int, list[str]]) -> Iterator[StepSummary]:
    for step in sorted(states):
        if state := series.state(states[step]):
            yield StepSummary(step=step, **dict(state.told))
