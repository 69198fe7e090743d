"""`summary.json` of a study: several runs together, written by `analysis.study` and read through `StudySummary`."""

from __future__ import annotations

from pathlib import Path
from typing import Final, Literal

from pydantic import JsonValue

from store.files import write_json
from store.settings import Settings, read_versioned
from store.values import Figure
from store.verdict import Verdict

FORMAT: Final = 1
"""Of a study's `summary.json`."""

Source = Literal["run", "released trials"]
"""What a run of a study was read from."""

Scale = Literal["correlation", "difference"]
"""What a figure is pooled on: Fisher's z, or as it is."""

Outcome = Literal["supported", "against", "not settled", "not testable", "not measured"]
"""What is said of a claim."""


class StudiedRun(Settings):
    """One of the runs.

    Attributes:
        group: The model, with the experiment where one model has runs of several; runs of a group are its trainings.
        parameters: Of the model, as its name tells; None where it does not.
        key: Hash of what its analysis depends on, or of the released files.
    """

    group: str
    model: str
    source: Source
    seed: int
    parameters: float | None
    key: str


class EstimateSummary(Verdict):
    """A figure of one run, with its 95% interval from resampling contexts, and the contexts behind it."""

    estimate: Figure
    low: Figure
    high: Figure
    n_contexts: int


class PooledSummary(Settings):
    """A figure of several runs together; see `analysis.study.meta.Pooled`."""

    mean: Figure
    low: Figure
    high: Figure
    between: Figure
    predicted_low: Figure
    predicted_high: Figure
    runs: int


class FigureSummary(Settings):
    """A figure, by run, and pooled over the runs of each group where it is testable."""

    scale: Scale
    runs: dict[str, EstimateSummary]
    pooled: dict[str, PooledSummary]


class PartSummary(Settings):
    """One condition of a claim.

    Attributes:
        figures: What it is read from: one figure, or one for each group.
        above, below: The claim is supported where the interval lies above `above`, and spoken against where it lies
            below `below`.
        contexts, trainings: How many contexts a run (with as many trainings), or trainings (with as many contexts),
            would settle it if the estimate stayed where it is; None where it is settled, or where no such number would.
    """

    figures: list[str]
    outcome: Outcome
    above: float
    below: float
    estimate: Figure
    low: Figure
    high: Figure
    runs: int
    contexts: int | None
    trainings: int | None


class ClaimSummary(Settings):
    """What the runs of a group say of one claim, and in a sentence."""

    outcome: Outcome
    sentence: str
    parts: list[PartSummary]


class CrossedSummary(Settings):
    """What the reports of each run know of its weights, and what those of others do; see `analysis.cross_model`.

    Attributes:
        runs: In the order of the matrices.
        matrix: r(reports of the row, weights of the column).
        weights_matrix: r(weights of the row, weights of the column).
        rows: By run, `own`, `twins`, `third_parties` and `others_weights`, each with r and, but for `own`, the
            difference of the own from it with its interval; None where there are none.
    """

    runs: list[str]
    matrix: list[list[Figure]]
    weights_matrix: list[list[Figure]]
    rows: dict[str, dict[str, dict[str, JsonValue] | None]]


class StudySummary(Settings):
    """`summary.json`.

    Attributes:
        smallest_effect: The smallest correlation, or difference of two, that is of interest.
        runs: By name.
        figures: By `comparison.figure` or `difference.figure`.
        verdicts: By group of runs, then by claim.
        cross_model: By comparison.
        notes: What was left out, and why.
        git, packages, python, host: See `store.provenance`.
    """

    format: Literal[1] = FORMAT
    smallest_effect: float
    runs: dict[str, StudiedRun]
    figures: dict[str, FigureSummary]
    verdicts: dict[str, dict[str, ClaimSummary]]
    cross_model: dict[str, CrossedSummary]
    notes: list[str]
    git: str | None
    packages: dict[str, str]
    python: str
    host: dict[str, JsonValue]


def write_study(path: Path, summary: StudySummary) -> None:
    """Write the summary of a study."""
    write_json(path, summary.model_dump(mode="json"))


def read_study(path: Path) -> StudySummary:
    """Read the summary of a study.

    Raises:
        InputError: There is none, or it is of another version.
    """
    return read_versioned(path, StudySummary, FORMAT, "run analysis.study again")
