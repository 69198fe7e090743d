"""`analysis/summary.json` of a run: every figure, written by `analysis.run` and read elsewhere through `RunSummary`."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Final, Literal

from pydantic import Field, JsonValue, SerializerFunctionWrapHandler, model_serializer

from store.curves_summary import AblationSummary, DepthSummary, TrajectorySummary
from store.files import write_json
from store.inside_summary import InsideSummary
from store.settings import Settings, read_versioned
from store.stages import stage_key
from store.values import Figure
from store.verdict import Verdict
from task.weights import Estimator

FORMAT: Final = 4
"""Of `summary.json`. Format 3 said how far reports and weights agree, and not what that is worth; 2 knew one gate for
all comparisons; 1, without a number, kept comparisons beside it."""

CIRCUMSTANCES = {"git", "packages", "python", "host"}
"""Fields of `RunSummary` that say where it was computed, not what was found."""

OPTIONAL = ("trajectories", "ablations", "depths", "inside")
"""Fields of `RunSummary` that are left out of the file where a run has no such arms."""


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


class AgreementSummary(Verdict):
    """Agreement of two sets of weights; see `analysis.stats.agreement.Agreement`.

    Figures are None where it is not testable, counts are there always.

    Attributes:
        undetermined: Contexts left out because the decisions on them determine no weights.
        r_log_odds: r with the log-odds weights.
        corrected_r, corrected_low, corrected_high: r without measurement noise, see `analysis.stats.reliability`.
        reliability_reports, reliability_weights: Of both sides; None for target weights, which are known.
    """

    r: Figure
    hdi_low: Figure
    hdi_high: Figure
    boot_low: Figure
    boot_high: Figure
    p_permutation: Figure
    detectable: Figure
    n_points: int
    n_contexts: int
    valid_reports: int
    total_reports: int
    ccc: Figure
    slope: Figure
    spearman: Figure
    mae: Figure
    sign_agreement: Figure
    top_attribute: Figure
    within_context_r: Figure
    undetermined: int
    r_log_odds: Figure
    corrected_r: Figure
    corrected_low: Figure
    corrected_high: Figure
    reliability_reports: Figure
    reliability_weights: Figure


class FoldSummary(Settings):
    """Agreement in one fold; see `analysis.stats.folds.FoldAgreement`."""

    r: Figure
    boot_low: Figure
    boot_high: Figure
    p_permutation: Figure
    chance_low: Figure
    chance_high: Figure
    n_contexts: int


class PredictionSummary(Settings):
    """How well one kind of weights predicts fresh decisions; see `analysis.stats.prediction.Predicted`."""

    share: Figure
    share_low: Figure
    share_high: Figure
    log_loss: Figure
    scale: Figure
    gain: Figure
    gain_low: Figure
    gain_high: Figure
    log_loss_gain: Figure
    log_loss_gain_low: Figure
    log_loss_gain_high: Figure
    n_contexts: int
    n_decisions: int


class TreatmentSummary(Settings):
    """r of the comparison `reports`, missing reports treated; see `analysis.stats.variants.Treatment`."""

    reports: str
    treatment: str
    r: Figure
    boot_low: Figure
    boot_high: Figure
    n_points: int
    n_contexts: int


class ComparisonSummary(AgreementSummary):
    """One comparison of reports.

    Attributes:
        outside: Readable reports with a value beyond +-100.
        unreadable: Reports that could not be read, by reason.
        constrained: Whether reports were forced into their form.
        opening: Of constrained reports: mean probability that the arm itself opens its reply so.
        free_readable, free_total: Free replies of the same arms beside constrained ones, readable and asked for.
        free_unreadable: Those that could not be read, by reason.
        r_given_target, r_of_target_given_learned: r(report, learned | target) and r(report, target | learned), with
            their intervals and the contexts behind them; `learned_over_target` is the first minus the second; see
            `analysis.stats.partial`.
        no_target: Why there are none of these; None where there are.
        r_constant, over_constant, r_centred: What one answer for all contexts gets, and r without attribute positions;
            see `analysis.stats.constant`.
        folds: Agreement in each fold by the arm that reported; empty where one arm reported on all contexts.
        p_equivalence: p-value of "r is the smallest effect of interest or more, up or down"; None where the experiment
            file names no such effect.
        r_within_folds: r with each fold standardised by itself; None without folds.
        predictions: By kind of weights, `reported` first; empty where not testable.
    """

    outside: int
    unreadable: dict[str, int]
    constrained: bool
    opening: Figure
    free_readable: int
    free_total: int
    free_unreadable: dict[str, int]
    r_given_target: Figure
    r_given_target_low: Figure
    r_given_target_high: Figure
    r_of_target_given_learned: Figure
    r_of_target_given_learned_low: Figure
    r_of_target_given_learned_high: Figure
    learned_over_target: Figure = None
    learned_over_target_low: Figure = None
    learned_over_target_high: Figure = None
    given_target_contexts: int
    no_target: str | None
    p_equivalence: Figure
    r_constant: Figure
    over_constant: Figure
    over_constant_low: Figure
    over_constant_high: Figure
    r_centred: Figure
    r_centred_low: Figure
    r_centred_high: Figure
    folds: dict[str, FoldSummary]
    r_within_folds: Figure
    predictions: dict[str, PredictionSummary]


class DifferenceSummary(Verdict):
    """How much better the reports of `after` agree than those of `before`; None where that is not testable.

    Attributes:
        p_bootstrap: Two-sided p-value that goes with the interval.
        detectable: The difference that so many contexts show with a power of 80%.
        p_equivalence: As of a comparison.
        r_of_changes, r_of_changes_low, r_of_changes_high: r(change of report, change of weight), where the decisions of
            both sets of arms were measured.
        r_of_weights, r_of_weights_low, r_of_weights_high: r(weights after, weights before), of the same decisions.
        changes_contexts: Contexts behind these.
        no_changes: Why there is none; None where there is.
    """

    before: str
    after: str
    difference: Figure = None
    boot_low: Figure = None
    boot_high: Figure = None
    p_bootstrap: Figure = None
    detectable: Figure = None
    p_equivalence: Figure = None
    n_contexts: int | None = None
    r_of_changes: Figure = None
    r_of_changes_low: Figure = None
    r_of_changes_high: Figure = None
    r_of_weights: Figure = None
    r_of_weights_low: Figure = None
    r_of_weights_high: Figure = None
    changes_contexts: int = 0
    no_changes: str | None = None


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
        estimator: What the weights of `gate`, `learned_vs_target` and every r are estimated by.
        gate: Of the arm that the experiment names.
        instillations: The same of other arms that were trained on decisions, by `arm/group`.
        stopped_early: Why the training of an arm was stopped before its end, by arm.
        learned_vs_target: Learned weights of the gate's arm against those that it was taught.
        comparisons, differences: By name, in the order of the experiment file.
        families: p-value of each member of a family, adjusted by Holm; None for what is not testable.
        smallest_effect: The smallest effect of interest; None where the experiment file names none.
        missing_reports: r of each comparison that is testable, missing reports treated in three ways.
        decisions: By `arm/group`, `arm (variant)/group` where the prompts are not the default.
        trial_files: Key of each trial file, by its folder within the run.
        trajectories, ablations, depths: Of the steps of a training that were kept, of the cuts of an adapter, and of
            trainings in some layers only, by `NAME/group`; left out where there are none.
        inside: What attribution and patching found; left out where no arm was looked into.
        git, packages, python, host: Of the analysis, see `store.provenance`.
    """

    format: Literal[4] = FORMAT
    run: str
    seed: int
    wording: str
    estimator: Estimator = "logistic"
    gate: GateSummary
    instillations: dict[str, GateSummary]
    stopped_early: dict[str, str]
    learned_vs_target: AgreementSummary
    comparisons: dict[str, ComparisonSummary]
    differences: dict[str, DifferenceSummary]
    families: dict[str, dict[str, Figure]]
    smallest_effect: float | None
    missing_reports: list[TreatmentSummary]
    decisions: dict[str, DecisionSummary]
    trial_files: dict[str, str]
    trajectories: dict[str, TrajectorySummary] = Field(default_factory=dict)
    ablations: dict[str, AblationSummary] = Field(default_factory=dict)
    depths: dict[str, DepthSummary] = Field(default_factory=dict)
    inside: InsideSummary | None = None
    git: str | None
    packages: dict[str, str]
    python: str
    host: dict[str, JsonValue]

    @model_serializer(mode="wrap")
    def _without_what_is_not_there(self, serialise: SerializerFunctionWrapHandler) -> dict[str, Any]:
        values: dict[str, Any] = serialise(self)
        return {name: value for name, value in values.items() if value or name not in OPTIONAL}

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
