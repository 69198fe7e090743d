"""What stages depend on, told from a run's folder."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import product
from pathlib import Path
from typing import NamedTuple

from pydantic import JsonValue

from store.manifests import MANIFEST
from store.run import RunFolder, RunRecord
from store.stages import begun, read_origin, stage_key
from task.prompts import PROMPTS, Measure, Variant


class TrialFolder(NamedTuple):
    """The trials of an arm in one measure and variant, free or constrained."""

    arm: str
    measure: Measure
    variant: Variant
    path: Path
    constrained: bool = False


def finished_trials(run: RunFolder, record: RunRecord) -> Iterator[TrialFolder]:
    """The finished trial folders of a run's arms: by measure, variant, free or constrained, then by name of the arm."""
    for measure, variants in PROMPTS.items():
        for variant, constrained in product(variants, (False, True) if measure == "reports" else (False,)):
            for arm in sorted(record.arms):
                if begun(path := run.trials_of(arm, measure, variant, constrained)) == "finished":
                    yield TrialFolder(arm, measure, variant, path, constrained)


def finished_trainings(run: RunFolder, record: RunRecord) -> list[str]:
    """The arms of a run whose training has finished, by name."""
    made = record.arms
    trained = [arm for arm in sorted(made) if made[arm].training and not made[arm].derived and made[arm].step is None]
    return [arm for arm in trained if begun(run.adapter(arm)) == "finished"]


def finished_looks(run: RunFolder, record: RunRecord) -> list[Path]:
    """The finished folders of attribution and patching of a run's arms, in order."""
    found = (path.parent for arm in sorted(record.arms) for path in sorted((run.inside / arm).glob(f"**/{MANIFEST}")))
    return [folder for folder in found if begun(folder) == "finished"]


def analysis_inputs(run: RunFolder, record: RunRecord) -> dict[str, JsonValue]:
    """What the analysis of a run depends on: the record, and the trials and trainings that have finished."""
    # The estimator is a part of the key where it is chosen, so that analyses from before there was a choice stay good.
    unchanged = {"estimator": True} if record.estimator == "logistic" else {}
    looks = {folder.relative_to(run.path).as_posix(): read_origin(folder).key for folder in finished_looks(run, record)}
    inside: dict[str, JsonValue] = {"inside": dict(looks)} if looks else {}  # left out where nobody looked, as above
    return {
        **inside,
        "command": "analysis.run",
        # What the experiment file says beyond the record, such as the number of processes, changes no figure, nor does
        # the place of the model: what it answered is in the trial files.
        "record": stage_key(
            record.model_dump(mode="json", exclude={"experiment": True, "model": {"name"}, **unchanged})
        ),
        "trial_files": {
            trials.path.relative_to(run.path).as_posix(): read_origin(trials.path).key
            for trials in finished_trials(run, record)
        },
        "trainings": {arm: read_origin(run.adapter(arm)).key for arm in finished_trainings(run, record)},
    }


def analysis_is_current(run: RunFolder, record: RunRecord) -> bool:
    """Whether the analysis that lies in a run was made from its record, trials and trainings as they are now."""
    if begun(run.analysis) != "finished":
        return False
    return read_origin(run.analysis).depends_on == analysis_inputs(run, record)
