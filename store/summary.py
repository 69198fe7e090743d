"""`analysis/summary.json` of a run: every figure, written by `analysis.run` and read elsewhere through `RunSummary`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any, Final, Literal

from pydantic import BeforeValidator, JsonValue, SerializerFunctionWrapHandler, model_serializer

from store.files import write_json
from store.settings import Settings, read_versioned
from store.stages import stage_key

FORMAT: Final = 2
"""Of `summary.json`. Format 1, without a number, kept comparisons beside the gate."""

CIRCUMSTANCES = {"git", "packages", "python", "host"}
"""Fields of `RunSummary` that say where it was computed, not what was found."""

Figure = Annotated[float | None, BeforeValidator(lambda value: None if value != value else value)]
"""A number, or None for what cannot be computed or is withheld; NaN, which JSON does not have, becomes None."""


class GateSummary(Settings):
    """Whether instillation passed, and if not, why."""

    passed: bool
    agreement: Figure
    share_a: Figure
    reasons: list[str]


class AgreementSummary(Settings):
    """Agreement of two sets of weights; see `analysis.stats.agreement.Agreement`."""

    r: Figure
    hdi_low: Figure
    hdi_high: Figure
    boot_low: Figure
    boot_high: Figure
    p_permutation: Figure
    n_points: int
    n_contexts: int
    valid_reports: int
    total_reports: int
    slope: Figure
    spearman: Figure
    mae: Figure
    sign_agreement: Figure
    top_attribute: Figure
    within_context_r: Figure


class ComparisonSummary(AgreementSummary):
    """One comparison; its figures are None where it is not testable, its counts are there always.

    Attributes:
        testable: Whether the figures have a meaning.
        reason: Why not; left out of the file where they have.
        r_log_odds: r with the log-odds weights.
        outside: Readable reports with a value beyond +-100.
        unreadable: Reports that could not be read, by reason.
    """

    testable: bool
    reason: str | None = None
    r_log_odds: Figure
    outside: int
    unreadable: dict[str, int]

    @model_serializer(mode="wrap")
    def _without_empty_reason(self, serialise: SerializerFunctionWrapHandler) -> dict[str, Any]:
        values: dict[str, Any] = serialise(self)
        return values if self.reason else {name: value for name, value in values.items() if name != "reason"}


class DifferenceSummary(Settings):
    """How much better the reports of `after` agree than those of `before`; None where that is not testable."""

    before: str
    after: str
    testable: bool
    difference: Figure = None
    boot_low: Figure = None
    boot_high: Figure = None
    n_contexts: int | None = None


class DecisionSummary(Settings):
    """How an arm decides on a group of contexts; see `analysis.study.gate.ArmDecisions`."""

    pairs: int
    share_a: Figure
    letter_mass: Figure
    position_bias: Figure
    flips: Figure
    agreement: Figure


class RunSummary(Settings):
    """`summary.json`.

    Attributes:
        stopped_early: Why the training of an arm was stopped before its end, by arm.
        learned_vs_target: Learned weights of the gate's arm against those that it was taught.
        comparisons, differences: By name, in the order of the experiment file.
        decisions: By `arm/group`, `arm (variant)/group` where the prompts are not the default.
        trial_files: Key of each trial file, by its folder within the run.
        git, packages, python, host: Of the analysis, see `store.provenance`.
    """

    format: Literal[2] = FORMAT
    run: str
    seed: int
    gate: GateSummary
    stopped_early: dict[str, str]
    learned_vs_target: AgreementSummary
    comparisons: dict[str, ComparisonSummary]
    differences: dict[str, DifferenceSummary]
    decisions: dict[str, DecisionSummary]
    trial_files: dict[str, str]
    git: str | None
    packages: dict[str, str]
    python: str
    host: dict[str, JsonValue]

    @property
    def key(self) -> str:
        """Hash of what was found, whatever machine and revision found it."""
        return stage_key(self.model_dump(mode="json", exclude=CIRCUMSTANCES))


def write_summary(path: Path, summary: RunSummary) -> None:
    """Write a summary."""
    write_json(path, summary.model_dump(mode="json"))


def read_summary(path: Path) -> RunSummary:
    """Read a summary.

    Raises:
        InputError: There is none, or it is of another version.
    """
    return read_versioned(path, RunSummary, FORMAT, "run analysis.run again")
