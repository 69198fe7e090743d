"""What stands beside r: from arms whose weights and reports are planted."""

from __future__ import annotations

import math

import numpy as np
import pytest

from analysis.stats.agreement import mean_reports, pearson, permutation_null
from analysis.stats.constant import beyond_constant
from analysis.stats.folds import fold_agreements
from analysis.stats.partial import whose_weights
from analysis.stats.reliability import corrected_r, halves_of_reports, halves_of_weights
from analysis.study.comparisons import ComparisonResult, MeasuredWeights, compare, measure_weights
from analysis.study.evidence import Evidence, change, treatments, weigh, without_noise
from store.run import ComparisonRecord, Source
from store.trials import DecisionTrials, ReportTrials
from task.contexts import Attribute, ChoiceContext
from task.seeding import stream
from task.weights import rescale

NAMES = [f"c{i}" for i in range(24)]
HALVES = {"fold_1": NAMES[1::2], "fold_2": NAMES[::2]}
CONTEXTS = {
    name: ChoiceContext(name, "an agent", "Which?", tuple(Attribute(f"a{k}", "m", 0, 10) for k in range(5)))
    for name in NAMES
}
RNG = np.random.default_rng(0)
TARGET = rescale(RNG.uniform(-1, 1, (24, 5)))
BEFORE, AFTER = rescale(TARGET + RNG.normal(0, 40, (24, 5))), rescale(TARGET + RNG.normal(0, 40, (24, 5)))
TARGETS = dict(zip(NAMES, TARGET, strict=True))
ROW = {name: i for i, name in enumerate(NAMES)}


def decided(weights: np.ndarray, names: list[str] = NAMES, pairs: int = 30) -> DecisionTrials:
    """Decisions by these weights, both orders, a little noise."""
    rng = np.random.default_rng(len(names))
    difference = rng.uniform(-1, 1, (len(names), pairs, 5))
    utility = np.einsum("cpa,ca->cp", difference, weights[[ROW[n] for n in names]])
    utility = utility / 20 + rng.logistic(size=utility.shape)
    log_odds = np.stack([utility, -utility], axis=-1)
    mass = np.ones_like(log_odds)
    return DecisionTrials(names, difference, log_odds, mass, mass.astype(bool), [[] for _ in names])


def reported(weights: np.ndarray, names: list[str] = NAMES, noise: float = 30, unread: int = 0) -> ReportTrials:
    """Four reports a context; the first `unread` contexts have none that can be read."""
    rng = np.random.default_rng(len(names) + 1)
    values = weights[[ROW[n] for n in names]][:, None] + rng.normal(0, noise, (len(names), 4, 5))
    values[:unread] = np.nan
    reasons = [["no_json"] * 4 if i < unread else [] for i in range(len(names))]
    return ReportTrials(names, values, np.full(len(names), 4), np.zeros(len(names), dtype=int), reasons)


DECIDED = {"instilled": decided(BEFORE), "trained": decided(AFTER), "off_the_shelf": decided(-BEFORE)}
REPORTED = {
    "instilled": reported(BEFORE, unread=3),
    "trained": reported(AFTER),
    "trained (third_person)": reported(TARGET, noise=60),
    **{fold: reported(AFTER, names) for fold, names in HALVES.items()},
}
MEASURED = {arm: measure_weights(trials, 0) for arm, trials in DECIDED.items()}


def comparison(name: str, arms: dict[str, list[str]], weights: str = "instilled") -> ComparisonResult:
    members = [n for names in arms.values() for n in names]
    entry = ComparisonRecord(
        name=name,
        contexts="instilled",
        reports=[Source(arm=arm, variant="trial", contexts=names) for arm, names in arms.items()],
        weights=[Source(arm=weights, variant="plain", contexts=members)],
    )
    return compare(entry, CONTEXTS, MEASURED, REPORTED, 0)


INSTILLED = comparison("instilled", {"instilled": NAMES})
TRAINED = comparison("trained", {"trained": NAMES})
FOLDS = comparison("folds", HALVES)


@pytest.fixture(scope="module")
def evidence() -> dict[str, Evidence]:
    return weigh([INSTILLED, TRAINED, FOLDS], DECIDED, REPORTED, MEASURED, TARGETS, 0)


def weights_of(arm: MeasuredWeights, names: list[str]) -> np.ndarray:
    return arm.weights[[ROW[n] for n in names]]


def test_whose_weights_and_the_constant_are_those_of_the_points(evidence: dict[str, Evidence]):
    x, _ = mean_reports(REPORTED["instilled"].values)
    y = MEASURED["instilled"].weights
    found = evidence["instilled"]
    assert found.whose == whose_weights(x, y, TARGET, seed=0) and found.whose.given_target_contexts == 21
    assert found.beyond == beyond_constant(x, y, seed=0)
    assert found.no_target is None and found.folds == {} and math.isnan(found.r_within_folds)


def test_contexts_without_targets_say_so_and_are_not_predicted_from_them():
    [found] = weigh([INSTILLED], DECIDED, REPORTED, MEASURED, {}, 0).values()
    assert found.no_target == "instilled contexts have no target weights"
    assert math.isnan(found.whose.r_given_target) and "target" not in found.predictions


def test_folds_speak_for_their_own_contexts_by_the_name_of_their_arm(evidence: dict[str, Evidence]):
    found = evidence["folds"].folds
    assert list(found) == ["fold_1", "fold_2"]
    for fold, names in HALVES.items():
        x, y = mean_reports(REPORTED[fold].values)[0], weights_of(MEASURED["instilled"], names)
        assert found[fold].r == pytest.approx(pearson(x, y))
        assert fold_agreements(x, y, np.zeros(12), seed=0)[0] == found[fold]
    x, y = FOLDS.sides
    within = permutation_null(x, y, seed=0, folds=[0] * 12 + [1] * 12)
    assert FOLDS.agreement.p_permutation == within
    assert pearson(x, y) - 0.05 < evidence["folds"].r_within_folds < pearson(x, y) + 0.05


def test_predictions_are_of_all_kinds_that_were_measured_whatever_the_order_of_contexts(evidence: dict[str, Evidence]):
    found = {name: e.predictions for name, e in evidence.items()}
    assert set(found["instilled"]) == {"reported", "learned", "target", "off_the_shelf", "another_context", "constant"}
    assert set(found["trained"]) == {*found["instilled"], "third_person"}
    assert found["instilled"]["reported"].n_decisions == 21 * 60
    for predictions in found.values():
        assert predictions["learned"].share > 0.7 > predictions["constant"].share
        assert predictions["off_the_shelf"].share < 0.3 and predictions["off_the_shelf"].scale == 0
    follows = (DECIDED["instilled"].difference @ BEFORE[..., None])[..., 0] > 0
    share = (DECIDED["instilled"].chose_a[..., 0] == follows).mean()
    again = weigh([FOLDS], DECIDED, REPORTED, MEASURED, dict(zip(NAMES, BEFORE, strict=True)), 0)["folds"]
    assert again.predictions["target"].share == pytest.approx(share)


def test_r_without_noise_is_that_of_the_halves_of_each_arm():
    found, of_folds = without_noise([INSTILLED, FOLDS], DECIDED, REPORTED, MEASURED, 0)
    decisions, reports = DECIDED["instilled"], REPORTED["instilled"]
    y_halves = halves_of_weights(
        decisions.chose_a[..., 0], decisions.difference, rng=stream(0, "halves_of_weights", "instilled"), seed=0
    )
    x_halves = halves_of_reports(reports.values, rng=stream(0, "halves_of_reports", "instilled"))
    assert found == corrected_r(*INSTILLED.sides, x_halves, y_halves, seed=0)
    assert of_folds is not None and of_folds.r > FOLDS.agreement.r and 0.5 < of_folds.reliability_x < 1


def test_missing_reports_are_treated_for_comparisons_with_the_same_weights_together():
    found = treatments([INSTILLED, FOLDS], REPORTED, MEASURED, 0)
    by_name = {(t.reports, t.treatment): t for t in found}
    assert by_name["instilled", "complete cases"].r == pytest.approx(INSTILLED.agreement.r)
    assert by_name["folds", "complete cases"].r == pytest.approx(FOLDS.agreement.r)
    assert [by_name["folds", t].n_contexts for t in ("complete cases", "shared contexts", "missing as 0")] == [
        24,
        21,
        24,
    ]
    assert by_name["instilled", "missing as 0"].n_contexts == 24
    other = comparison("own", {"trained": NAMES}, weights="trained")
    apart = treatments([INSTILLED, other], REPORTED, MEASURED, 0)
    assert {t.n_contexts for t in apart if t.reports == "own"} == {24}


def test_reports_that_follow_new_decisions_are_told_from_reports_that_stay():
    found = change(INSTILLED, TRAINED, MEASURED, 0)
    dx = TRAINED.sides[0] - INSTILLED.sides[0]
    dy = MEASURED["trained"].weights - MEASURED["instilled"].weights
    assert found.r == pytest.approx(pearson(dx, dy)) and found.boot_low > 0.3 and found.n_contexts == 21
    stayed = ~np.isnan(dx + dy).any(axis=1)
    before, after = (MEASURED[arm].weights[stayed] for arm in ("instilled", "trained"))
    assert found.r_of_weights == pytest.approx(pearson(after, before))
    assert found.r_of_weights_low < found.r_of_weights < found.r_of_weights_high
    assert [source.arm for source in found.decided_by] == ["instilled", "trained"]
    same = change(INSTILLED, INSTILLED, MEASURED, 0)
    assert same.reason == "both sets of reports are of the same arm" and math.isnan(same.r)
    without = change(INSTILLED, FOLDS, MEASURED, 0)
    assert without.reason == "decisions of fold_1, fold_2 were not measured"
