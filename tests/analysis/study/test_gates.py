"""The gates: what an arm did not decide, or did not learn, is missing or not testable, and stands in no figure."""

from __future__ import annotations

import dataclasses
import json
import math
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from analysis.baseline import weights_of, withheld
from analysis.cross_model import read_model
from analysis.joint_model import fit_case
from analysis.pages.comparison_figures import draw_correlations, draw_scatter
from analysis.pages.drawing import house_style
from analysis.pages.text import NOT_TESTABLE
from analysis.pages.verdict import verdict
from analysis.run import summary, write_analysis
from analysis.study.comparisons import measure_weights
from analysis.study.gate import ArmDecisions, judge, judge_answers, summarise_decisions
from analysis.study.joint import case_of
from analysis.study.results import RunResults, analyse
from store.summary import read_summary
from store.trials import DecisionTrials
from support import ROOT
from task.errors import InputError
from task.thresholds import DETERMINED, FLIPS, READABLE_DECISIONS

ARMS = {
    "silent": "no_letter: 1.0",
    "always_a": "position_bias: 50.0",
    "not_a_number": "not_finite: 1.0",
    "reversed": "sharpness: -5.0",
    "partly": "decided_contexts: 0.1667",
    # What introspection training may do to deciding: hardly a letter, and of those most are A.
    "introspection": "no_letter: 0.97, position_bias: 6.0, report_accuracy: 0.8",
    "collapsed": "report_accuracy: 0.8, unreadable: 0.95, unreadable_reply: A",
}
"""How arms are planted beside one that has learned its weights."""

UNDECIDED = ("silent", "always_a", "not_a_number", "partly", "introspection")
"""Those whose decisions determine no weights, or too few."""

EXPERIMENT = """
name: planted
seeds: [0]
engine: {name: simulated, shard_size: 5000}
contexts:
  instilled: {file: task/data/instilled.jsonl, count: 60}
planted:
  off_the_shelf: {}
  instilled: {report_accuracy: 0.5}
""" + "".join(f"  {arm}: {{{answers}}}\n" for arm, answers in ARMS.items())
EXPERIMENT += "measurements:\n"
for arm in ("instilled", *ARMS):
    EXPERIMENT += f"  - {{arm: {arm}, measure: decisions, contexts: instilled, per_context: 30}}\n"
    EXPERIMENT += f"  - {{arm: {arm}, measure: reports, contexts: instilled, per_context: 2}}\n"
EXPERIMENT += "  - {arm: collapsed, measure: reports, contexts: instilled, per_context: 2, constrained: true}\n"
EXPERIMENT += "gate: {arm: instilled, contexts: instilled}\ncomparisons:\n"
for arm in ("instilled", *ARMS):
    EXPERIMENT += f"  - {{name: own_{arm}, reports: {arm}, weights: {arm}, contexts: instilled}}\n"
EXPERIMENT += """
  - {name: trained, reports: introspection, weights: instilled, contexts: instilled}
  - {name: forced, reports: collapsed, weights: instilled, contexts: instilled, reports_constrained: true}
differences:
  - {name: kept, before: own_instilled, after: trained}
"""


@pytest.fixture(scope="module")
def planted(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A finished run of all these arms, with its analysis."""
    folder = tmp_path_factory.mktemp("runs")
    (folder / "planted.yaml").write_text(EXPERIMENT)
    command = [sys.executable, "scripts/run_experiment.py", str(folder / "planted.yaml"), "--runs", str(folder)]
    environment = {**os.environ, "WANDB_MODE": "disabled"}
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, env=environment)
    assert done.returncode == 0, done.stdout + done.stderr
    return folder / "planted-seed0"


@pytest.fixture(scope="module")
def found(planted: Path) -> RunResults:
    return analyse(planted)


def texts(drawing, results: RunResults) -> list[tuple[str, int]]:
    """The text of each axes of a picture, and how many points it shows."""
    with house_style():
        canvas = drawing(results)[0]
        return [
            (
                "\n".join(t.get_text() for t in axes.texts),
                sum(len(c.get_offsets()) for c in axes.collections),
            )
            for axes in canvas.axes
        ]


def test_what_an_arm_did_not_decide_stands_in_no_figure(planted: Path, found: RunResults):
    assert found.gate.passed
    said = read_summary(planted / "analysis" / "summary.json")
    table = pd.read_csv(planted / "analysis" / "agreement.csv").set_index("comparison")
    page = (planted / "analysis" / "report.html").read_text(encoding="utf-8")
    for arm in UNDECIDED:
        own, name = said.comparisons[f"own_{arm}"], f"own_{arm}"
        assert not own.testable and own.reason and own.reason.startswith(f"{arm} does not decide on instilled contexts")
        assert own.r is own.boot_low is own.slope is own.r_log_odds is None
        assert not table.loc[name, "testable"] and table.loc[name, "reason"] == own.reason
        assert math.isnan(table.loc[name, "r"]) and table.loc[name, "undetermined"] == own.undetermined >= 50
        row, *_ = re.findall(rf"<tr><th>{name}</th>.*?</tr>", page, re.DOTALL)
        assert f'">{NOT_TESTABLE}: {arm} does not decide' in row and not re.search(r"\d\.\d\d", row)
        assert not said.decisions[f"{arm}/instilled"].passed
    for name in ("own_instilled", "own_collapsed", "trained", "forced"):
        assert said.comparisons[name].testable and said.comparisons[name].r is not None
    panels = {title: shown for title, *shown in texts(draw_scatter, found)}
    stamped = [title for title in panels if NOT_TESTABLE in title]
    assert len(stamped) == len(UNDECIDED) and all(panels[title] == [0] for title in stamped)
    [(words, _)] = texts(draw_correlations, found)
    assert words.count(NOT_TESTABLE) == len(UNDECIDED)
    console = subprocess.run(
        [sys.executable, "-m", "analysis.run", "--run", str(planted)], cwd=ROOT, capture_output=True, text=True
    ).stdout
    for arm in UNDECIDED:
        assert f"own_{arm}: {NOT_TESTABLE} ({arm} does not decide on instilled contexts: " in console


def test_undecided_trials_are_counted_by_reason(found: RunResults):
    decisions = {arm: found.decisions[arm, "instilled"] for arm in ("instilled", *ARMS)}
    trials = 60 * 30 * 2
    assert all(d.trials == trials and d.pairs == trials // 2 and d.contexts == 60 for d in decisions.values())
    assert (decisions["silent"].readable, decisions["silent"].undecided) == (0, {"no_letter": trials})
    assert (decisions["not_a_number"].readable, decisions["not_a_number"].undecided) == (0, {"not_finite": trials})
    assert math.isnan(decisions["silent"].share_a) and math.isnan(decisions["silent"].agreement)
    lost = decisions["introspection"]
    assert lost.readable == pytest.approx(1 - lost.undecided["no_letter"] / trials) and lost.readable < 0.06
    assert lost.share_a > 0.8
    assert decisions["always_a"].readable == decisions["always_a"].flips == decisions["always_a"].share_a == 1
    assert decisions["always_a"].determined == 0 and decisions["partly"].determined == 10
    assert decisions["instilled"].agreement > 0.95 and decisions["reversed"].agreement < 0.05


def test_contexts_without_weights_are_empty_in_the_table(planted: Path):
    weights = pd.read_csv(planted / "analysis" / "weights.csv").set_index("arm")
    figures = [c for c in weights.columns if re.match(r"raw|sd|weight|log_odds|pareto_k", c)]
    for arm in ("silent", "always_a", "not_a_number"):
        assert weights.loc[arm, figures].isna().all(axis=None) and len(weights.loc[arm]) == 60
    assert (weights.loc["partly", figures].notna().all(axis=1)).sum() == 10
    assert weights.loc["instilled", figures].notna().all(axis=None)


def with_record(run: Path, folder: Path, **changes: dict[str, object]) -> Path:
    """A copy of a run whose `run.json` says something else."""
    copy = Path(shutil.copytree(run, folder / "copy", ignore=shutil.ignore_patterns("analysis", "tracked")))
    record = json.loads((copy / "run.json").read_text())
    for name, value in changes.items():
        record[name] |= value
    (copy / "run.json").write_text(json.dumps(record))
    return copy


CAUSES = {
    "silent": "the model does not answer with a letter",
    "always_a": "the model answers A on 100% of trials",
    "not_a_number": "the model does not answer with a letter",
    "reversed": "decisions go against the target weights (reversed)",
    "partly": "the model answers A on",
}


@pytest.mark.parametrize("arm", CAUSES)
def test_a_gate_arm_that_did_not_learn_to_decide_makes_nothing_testable(planted: Path, tmp_path: Path, arm: str):
    copy = with_record(planted, tmp_path, gate={"arm": arm})
    results = write_analysis(copy)
    assert not results.gate.passed and CAUSES[arm] in results.gate.reasons[-1]
    said = read_summary(copy / "analysis" / "summary.json")
    assert not any(c.testable or c.r is not None for c in said.comparisons.values())
    assert not said.differences["kept"].testable and said.differences["kept"].difference is None
    assert (said.learned_vs_target.r is None) == (arm in UNDECIDED), "reversed weights are weights"
    page = (copy / "analysis" / "report.html").read_text(encoding="utf-8")
    assert "chance" not in results.gate.reasons[-1] or arm == "reversed"
    assert "nan" not in verdict(results) and CAUSES[arm].split(" (")[0] in page


def test_an_arm_that_was_trained_on_decisions_and_reversed_them_is_not_testable(planted: Path, tmp_path: Path):
    taught = {"reversed": {"training": "reversed", "teach": "decisions", "contexts": "instilled"}}
    results = analyse(with_record(planted, tmp_path, arms=taught))
    said = summary(results)
    assert said.comparisons["own_reversed"].reason.startswith("reversed did not learn its decisions: the share of")
    assert "reversed)" in said.instillations["reversed/instilled"].reasons[-1]
    assert said.comparisons["own_instilled"].testable and said.gate.passed


def test_lost_decisions_are_not_called_changed_weights(planted: Path, found: RunResults):
    """Introspection training that destroys deciding: its own weights are not testable, the others are."""
    said = summary(found)
    assert not said.comparisons["own_introspection"].testable
    assert said.comparisons["trained"].testable and said.comparisons["trained"].r > 0.6
    assert said.differences["kept"].testable
    told = verdict(found)
    assert "“own introspection” is not testable: introspection does not decide on instilled contexts" in told
    assert told.count("Decisions that were not made do not show that weights changed.") == 1
    page = (planted / "analysis" / "report.html").read_text(encoding="utf-8")
    assert "drift" not in page and "introspection</th>" in page
    entry = found.record.differences[0].model_copy(update={"after": "own_introspection"})
    assert "does not decide" in str(
        found.untestable_difference(dataclasses.replace(found.differences[0], after=entry.after))
    )


def test_constrained_reports_of_a_collapsed_arm_are_named(planted: Path, found: RunResults):
    said = read_summary(planted / "analysis" / "summary.json").comparisons
    forced = said["forced"]
    assert forced.constrained and not said["own_collapsed"].constrained
    assert {c.name: c.reports for c in found.comparisons}["forced"] == "collapsed (constrained)"
    assert forced.valid_reports == forced.total_reports == 120 and forced.opening == pytest.approx(0.05)
    assert forced.free_total == 60 and forced.free_readable < 12
    assert forced.free_unreadable == {"letter": 60 - forced.free_readable}
    sentence = (
        "These reports were forced into a form that the arm itself no longer gives: “forced” ("
        f"{forced.free_readable} of 60 free replies could be read; most often the reply is a letter, as if a decision "
        "had been asked for; a reply is opened as asked with a mean probability of 0.05)."
    )
    assert sentence in verdict(found)
    page = (planted / "analysis" / "report.html").read_text(encoding="utf-8")
    assert f"<tr><th>forced</th><td>0.05</td><td>{forced.free_readable}/60</td>" in page
    assert "120/120 constrained" in page and "The reply is a letter, as if a decision had been asked for." in page
    assert "“own collapsed”" not in verdict(found).split("were forced into")[1]


def test_further_questions_leave_out_what_is_not_testable(planted: Path, found: RunResults):
    sources = {(label, group) for label, group, *_ in weights_of(found)}
    assert sources == {(arm, "instilled") for arm in ("target", "instilled", "reversed", "collapsed")}
    reasons = withheld(found)
    assert {*reasons} == {f"{arm}/instilled" for arm in UNDECIDED}
    assert all(reason.startswith(f"{NOT_TESTABLE}, ") and "does not decide" in reason for reason in reasons.values())
    with pytest.raises(InputError, match=r"own_silent is not testable, silent does not decide on instilled contexts"):
        read_model(planted, "own_silent")
    case = case_of(found, "own_partly")
    assert (~np.isnan(case.chose_a).all(axis=1)).sum() == 10
    fitted = fit_case(case, found.untestable(case.result), seed=0)
    assert (fitted["testable"], fitted["rho"]) == (False, None)
    assert fitted["reason"].startswith("not testable, partly does not decide on instilled contexts: 83% of its choices")


def trials(log_odds: np.ndarray, seed: int = 0) -> DecisionTrials:
    """Decisions with these log odds, (contexts, pairs, 2); NaN is a trial without a letter."""
    shape = log_odds.shape
    difference = np.random.default_rng(seed).uniform(-1, 1, (*shape[:2], 5))
    reasons = [["no_letter"] * int(np.isnan(rows).sum()) for rows in log_odds]
    mass = np.where(np.isnan(log_odds), 0.1, 1.0)
    return DecisionTrials([f"c{i}" for i in range(shape[0])], difference, log_odds, mass, np.ones(shape, bool), reasons)


def test_decisions_are_summarised_over_what_was_decided():
    rng = np.random.default_rng(3)
    weights = {f"c{i}": rng.uniform(-100, 100, 5) for i in range(4)}
    shown = trials(np.zeros((4, 10, 2)))
    gain = np.einsum("cpa,ca->cp", shown.difference, np.stack([*weights.values()]))
    log_odds = np.stack([gain, -gain], axis=-1)
    log_odds[0, :3] *= -1  # three pairs decided against the weights, in both orders
    log_odds[1, :4, 1] = np.nan  # four trials undecided, the other order of the pair decided
    log_odds[2, 0, 0] *= -1  # one pair that flips
    found = summarise_decisions(dataclasses.replace(trials(log_odds)), [*weights], weights)
    assert (found.pairs, found.trials, found.readable, found.undecided) == (40, 80, 76 / 80, {"no_letter": 4})
    assert found.flips == pytest.approx(1 / 36)
    assert found.agreement == pytest.approx((76 - 6 - 1) / 76)
    assert found.share_a == pytest.approx(np.nanmean(np.where(np.isnan(log_odds), np.nan, log_odds > 0)))
    assert found.letter_mass == pytest.approx((76 + 0.4) / 80)
    both = ~np.isnan(log_odds).any(axis=-1)
    assert found.position_bias == pytest.approx(log_odds[both].mean())
    assert found.agreement_low < found.agreement < found.agreement_high


def test_the_interval_of_agreement_resamples_contexts():
    """Every context is decided wholly with or wholly against its weights: trials would say 50% +- 3%."""
    weights = {f"c{i}": np.ones(5) for i in range(20)}
    shown = trials(np.zeros((20, 50, 2)))
    gain = shown.difference.sum(axis=2)
    signs = np.where(np.arange(20) % 2 == 0, 1, -1)[:, None]
    decided = trials(np.stack([signs * gain, -signs * gain], axis=-1))
    found = summarise_decisions(decided, [*weights], weights)
    assert found.agreement == 0.5
    assert found.agreement_low == pytest.approx(0.5 - 2.15 * math.sqrt(0.25 / 19), abs=0.05)


FINE = ArmDecisions(
    pairs=500, trials=1000, readable=1.0, undecided={}, contexts=50, determined=50, share_a=0.5, letter_mass=1.0,
    position_bias=0.0, flips=0.1, agreement=0.9, agreement_low=0.87, agreement_high=0.93,
)  # fmt: skip


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"readable": READABLE_DECISIONS, "flips": FLIPS, "determined": 50 * DETERMINED}, None),
        (
            {"readable": 0.89, "undecided": {"no_letter": 110}},
            "89% of its trials are decisions (no letter: 110), fewer",
        ),
        ({"readable": math.nan}, "of its trials are decisions"),
        ({"flips": 0.36}, "36% of its choices change when the options change place, more than 35%"),
        ({"flips": math.nan}, None),
        ({"determined": 39}, "its decisions determine the weights of 39 of 50 contexts, fewer than 80%"),
        ({"determined": 0, "contexts": 0}, "of 0 of 0 contexts"),
    ],
)
def test_the_answer_gate_is_at_its_limits(changes: dict[str, float], said: str | None):
    gate = judge_answers(dataclasses.replace(FINE, **changes))
    assert gate.passed == (said is None)
    assert said is None or said in gate.reasons[0]


@pytest.mark.parametrize(
    ("decisions", "r", "cause"),
    [
        ({}, (0.9, 0.85, 0.95), None),
        ({"agreement_low": 0.79}, (0.9, 0.85, 0.95), "the lower ends of their intervals do not"),
        ({}, (0.9, 0.79, 0.95), "the lower ends of their intervals do not"),
        ({}, (math.nan, math.nan, math.nan), "in part"),
        ({"agreement": 0.1, "agreement_low": 0.05}, (-0.9, -0.95, -0.85), "(reversed)"),
        ({"agreement": 0.5, "agreement_low": 0.45}, (0.0, -0.2, 0.2), "close to chance"),
        ({"agreement": 0.45, "agreement_low": 0.41}, (-0.2, -0.3, -0.1), "close to chance"),
        ({"agreement": 0.5, "agreement_low": 0.45, "flips": 0.9}, (0.0, -0.2, 0.2), "the letter, not the option"),
        ({"agreement": 0.5, "agreement_low": 0.45, "share_a": 0.02}, (0.0, -0.2, 0.2), "the model answers B on 98%"),
        ({"readable": 0.5, "letter_mass": 0.4}, (0.9, 0.85, 0.95), "does not answer with a letter"),
    ],
)
def test_the_instillation_gate_goes_by_lower_ends_and_tells_causes_apart(
    found: RunResults, decisions: dict[str, float], r: tuple[float, float, float], cause: str | None
):
    learned = dataclasses.replace(found.learned_vs_target.agreement, r=r[0], boot_low=r[1], boot_high=r[2])
    gate = judge(dataclasses.replace(FINE, **decisions), learned)
    assert gate.passed == (cause is None)
    assert cause is None or cause in gate.reasons[-1]


def test_a_posterior_that_is_the_prior_is_no_weight():
    """Differences that are all zero: any number of decisions of both letters says nothing."""
    rng = np.random.default_rng(0)
    log_odds = rng.normal(size=(3, 40, 2))
    shown = dataclasses.replace(trials(log_odds), difference=np.zeros((3, 40, 5)))
    found = measure_weights(shown, seed=0)
    assert not found.determined.any() and np.isnan(found.posterior_mean).all() and np.isnan(found.log_odds).all()


def test_reports_none_of_which_could_be_read_are_not_testable(found: RunResults):
    comparison = next(c for c in found.comparisons if found.testable(c))
    unread = dataclasses.replace(comparison.agreement, valid_reports=0)
    reason = found.untestable(dataclasses.replace(comparison, agreement=unread))
    asked = comparison.agreement.total_reports
    assert reason == f"none of the {asked} reports of {comparison.reports} could be read"
