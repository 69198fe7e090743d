"""`analysis/summary.json` of a run: every figure, written by `analysis.run` and read elsewhere through `RunSummary`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any, Final, Literal

from pydantic import BeforeValidator, JsonValue, SerializerFunctionWrapHandler, model_serializer

from store.files import write_json
from store.settings import Settings, read_versioned
from store.stages import stage_key

FORMAT: Final = 3
"""Of `summary.json`. Format 2 knew one gate for all comparisons; 1, without a number, kept comparisons beside it."""

CIRCUMSTANCES = {"git", "packages", "python", "host"}
"""Fields of `RunSummary` that say where it was computed, not what was found."""

Figure = Annotated[float | None, BeforeValidator(lambda value: None if value != value else value)]
"""A number, or None for what cannot be computed or is withheld; NaN, which JSON does not have, becomes None."""


class GateSummary(Settings):
    """Whether instillation passed, and if not, why; see `analysis.study.gate.GateResult`."""

    passed: bool
    agreement: Figure
    agreement_low: Figure
    agreement_high: Figure
    r: Figure
    r_low: Figure
    r_high: Figure
    share_a: Figure
    reasons: list[str]


class Verdict(Settings):
    """Whether a figure has a meaning.

    Attributes:
        testable: Whether it has.
        reason: Why not; left out of the file where it has.
    """

    testable: bool
    reason: str | None = None

    @model_serializer(mode="wrap")
    def _without_empty_reason(self, serialise: SerializerFunctionWrapHandler) -> dict[str, Any]:
        values: dict[str, Any] = serialise(self)
        return values if self.reason else {name: value for name, value in values.items() if name != "reason"}


class AgreementSummary(Verdict):
    """Agreement of two sets of weights; see `analysis.stats.agreement.Agreement`.

    Figures are None where it is not testable, counts are there always.

    Attributes:
        undetermined: Contexts left out because the decisions on them determine no weights.
        r_log_odds: r with the log-odds weights.
    """

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
    undetermined: int
    r_log_odds: Figure


class ComparisonSummary(AgreementSummary):
    """One comparison of reports.

    Attributes:
        outside: Readable reports with a value beyond +-100.
        unreadable: Reports that could not be read, by reason.
        constrained: Whether reports were forced into their form.
        opening: Of constrained reports: mean probability that the arm itself opens its reply so.
        free_readable, free_total: Free replies of the same arms beside constrained ones, readable and asked for.
        free_unreadable: Those that could not be read, by reason.
    """

    outside: int
    unreadable: dict[str, int]
    constrained: bool
    opening: Figure
    free_readable: int
    free_total: int
    free_unreadable: dict[str, int]


class DifferenceSummary(Verdict):
    """How much better the reports of `after` agree than those of `before`; None where that is not testable."""

    before: str
    after: str
    difference: Figure = None
    boot_low: Figure = None
    boot_high: Figure = None
    n_contexts: int | None = None


class DecisionSummary(Settings):
    """How an arm decides on a group of contexts; see `analysis.study.gate.ArmDecisions`.

    Attributes:
        passed, reasons: Its answer gate.
    """

    passed: bool
    reasons: list[str]
    pairs: int
    trials: int
    readable: Figure
    undecided: dict[str, int]
    contexts: int
    determined: int
    share_a: Figure
    letter_mass: Figure
    position_bias: Figure
    flips: Figure
    agreement: Figure
    agreement_low: Figure
    agreement_high: Figure


class RunSummary(Settings):
    """`summary.json`.

    Attributes:
        wording: In which words arms were asked.
        gate: Of the arm that the experiment names.
        instillations: The same of other arms that were trained on decisions, by `arm/group`.
        stopped_early: Why the training of an arm was stopped before its end, by arm.
        learned_vs_target: Learned weights of the gate's arm against those that it was taught.
        comparisons, differences: By name, in the order of the experiment file.
        decisions: By `arm/group`, `arm (variant)/group` where the prompts are not the default.
        trial_files: Key of each trial file, by its folder within the run.
        git, packages, python, host: Of the analysis, see `store.provenance`.
    """

    format: Literal[3] = FORMAT
    run: str
    seed: int
    wording: str
    gate: GateSummary
    instillations: dict[str, GateSummary]
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
