"""The report: complete, self-contained, escaped, and silent about what is not testable."""

from __future__ import annotations

import base64
import dataclasses
import math
import re
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import pytest

from analysis.pages.figures import Figure, save_figures
from analysis.pages.report import write_report
from analysis.pages.text import NOT_TESTABLE
from analysis.pages.verdict import verdict
from analysis.run import COUNTS, agreement_table, summary
from analysis.study.gate import GateResult, judge
from analysis.study.results import RunResults
from store.manifests import BaseModelRecord, ExampleFacts, Manifest, TrainingFacts
from store.model_file import ModelFile
from store.summary import read_summary


class Page(HTMLParser):
    """A page as its attributes, the cells of its table rows, and its text without style and scripts."""

    def __init__(self, html: str) -> None:
        super().__init__()
        self.attributes: list[tuple[str, str, str]] = []
        self.rows: list[list[str]] = []
        self.text = ""
        self.open: list[str] = []
        self.feed(html)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.attributes += [(tag, name, value or "") for name, value in attrs]
        if tag not in ("meta", "img", "br"):
            self.open.append(tag)
        if tag == "tr":
            self.rows.append([])
        if tag in ("td", "th"):
            self.rows[-1].append("")

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag, f"</{tag}> closes another element"

    def handle_data(self, data: str) -> None:
        if "style" in self.open or "script" in self.open:
            return
        self.text += data
        if "td" in self.open or "th" in self.open:
            self.rows[-1][-1] += data

    def row(self, first: str, columns: int) -> list[str]:
        (found,) = (row for row in self.rows if row[0] == first and len(row) == columns)
        return found


WIDTH = 15
"""Cells of a row of the headline table."""


@pytest.fixture(scope="module")
def figures(passed: RunResults, tmp_path_factory: pytest.TempPathFactory) -> list[Figure]:
    return save_figures(passed, tmp_path_factory.mktemp("figures"))


def written(results: RunResults, figures: list[Figure], folder: Path) -> str:
    write_report(results, summary(results), figures, folder / "report.html")
    return (folder / "report.html").read_text(encoding="utf-8")


def test_every_comparison_is_shown_as_in_the_summary(simulated_run: Path) -> None:
    page = Page((simulated_run / "analysis" / "report.html").read_text(encoding="utf-8"))
    summary = read_summary(simulated_run / "analysis" / "summary.json")
    shown = {"learned_vs_target": summary.learned_vs_target, **summary.comparisons}
    for name in ("learned_vs_target", "off_the_shelf", "instilled", "introspection_trained", "native_before"):
        found, row = shown[name].model_dump(), page.row(name, WIDTH)
        assert row[1] == f"{found['r']:.2f}"
        assert row[2] == f"[{found['boot_low']:.2f}, {found['boot_high']:.2f}]"
        assert row[3] == f"[{found['hdi_low']:.2f}, {found['hdi_high']:.2f}]"
        assert row[8] == f"{found['mae']:.1f}"
        assert row[-1].split()[0] == str(found["n_contexts"])
        assert row[-3] in (f"{found['valid_reports']}/{found['total_reports']} free", "–")  # noqa: RUF001
    instilled = summary.comparisons["instilled"]
    unread = instilled.total_reports - instilled.valid_reports
    assert unread
    assert page.row("instilled", 3)[1:] == [f"{unread}/60", f"no json: {instilled.unreadable['no_json']}"]
    assert str(summary.git) in page.text
    for key in summary.trial_files.values():
        assert key in page.text
    for sentence in (
        "kept as given, not clipped, and counted",
        "excludes that fine-tuning caused preference and report",
    ):
        assert sentence in page.text


def test_the_page_needs_nothing_beside_itself(
    passed: RunResults, failed: RunResults, figures: list[Figure], tmp_path: Path
) -> None:
    for results in (passed, failed):
        html = written(results, figures, tmp_path)
        page = Page(html)
        assert not page.open
        sources = [value for tag, name, value in page.attributes if name in ("src", "href", "srcset", "data")]
        assert [base64.b64decode(s.removeprefix("data:image/png;base64,")) for s in sources] == [
            figure.path.read_bytes() for figure in figures
        ]
        assert not re.search(r"https?:|url\(|@import|<link", html)
        assert all(figure.caption in page.text for figure in figures)


def marked(results: RunResults) -> RunResults:
    """The same run with 77.77 for every measure of every comparison, a number that is nowhere else on a page."""
    comparisons = []
    for c in results.comparisons:
        measures = {name: 77.77 for name, value in vars(c.agreement).items() if isinstance(value, float)}
        comparisons.append(
            dataclasses.replace(c, agreement=dataclasses.replace(c.agreement, **measures), r_log_odds=77.77)
        )
    return dataclasses.replace(results, comparisons=comparisons)


def test_r_by_log_odds_stands_once_where_all_weights_are_by_log_odds(
    passed: RunResults, figures: list[Figure], tmp_path: Path
) -> None:
    record = passed.record.model_copy(update={"estimator": "log_odds"})
    by_odds = dataclasses.replace(passed, record=record)
    assert "r, log-odds weights" in written(passed, figures, tmp_path)
    page = written(by_odds, figures, tmp_path)
    assert "r, log-odds weights" not in page
    for c in by_odds.shown:
        row, r = Page(page).row(c.name, WIDTH - 1), c.agreement.r
        assert row[1] == f"{r:.2f}" and row[5] == f"{c.agreement.slope:.2f}", "the columns behind it moved up"
    usual, table = agreement_table(passed), agreement_table(by_odds)
    assert [*usual.columns.drop("r_log_odds")] == [*table.columns]


def test_a_failed_gate_withholds_every_measure_of_every_comparison(
    passed: RunResults, failed: RunResults, figures: list[Figure], tmp_path: Path
) -> None:
    assert Page(written(marked(passed), figures, tmp_path)).text.count("77.77") > 20
    page = Page(written(marked(failed), figures, tmp_path))
    assert not re.search(r"77\.[78]|7777", page.text)
    for comparison in failed.comparisons:
        a = comparison.agreement
        row = page.row(comparison.name, 5)
        assert row[1:3] == [NOT_TESTABLE, f"{a.valid_reports}/{a.total_reports} free"]
    assert page.row("learned_vs_target", WIDTH)[1] == f"{failed.learned_vs_target.agreement.r:.2f}"
    assert "97.0% ✗" in page.row("share of A", 3)
    assert "Gate: not passed" in page.text
    assert failed.gate.reasons[-1] in page.text


@pytest.mark.parametrize("gate", ["passed", "failed"])
def test_the_table_says_of_every_comparison_what_the_summary_says(gate: str, request: pytest.FixtureRequest) -> None:
    results: RunResults = request.getfixturevalue(gate)
    found, why = summary(results), "; ".join(results.gate.reasons)
    table = agreement_table(results).set_index("comparison")
    assert table.loc["learned_vs_target", "r"] == found.learned_vs_target.r
    for comparison in results.comparisons:
        row, said = table.loc[comparison.name], found.comparisons[comparison.name].model_dump()
        assert row["testable"] == said["testable"] == (gate == "passed")
        assert (row["reason"] or None) == said.get("reason")
        assert said.get("reason", "") == ("" if gate == "passed" else f"the gate was not passed: {why}")
        for name, value in said.items():
            if name in row.index and name != "reason":
                assert row[name] == value or (np.isnan(row[name]) and (value is None or math.isnan(value))), name
        assert row["total_reports"] > 0
        if gate == "failed":
            given = {"reports", "weights", "contexts", "testable", "reason", "outside", "undetermined", *COUNTS}
            given |= {"constrained", "free_readable", "free_total", "given_target_contexts"}
            given |= {"no_target"} if said["no_target"] else set()
            assert set(row.dropna().index) == given


def test_names_are_escaped(passed: RunResults, figures: list[Figure], tmp_path: Path) -> None:
    evil = "<b>R&D</b>"
    first, *others = passed.comparisons
    name = passed.groups["instilled"][0]
    context = passed.contexts[name]
    attribute = dataclasses.replace(context.attributes[0], name=evil)
    check = passed.learned_vs_target
    made = Manifest(
        depends_on={"base": evil},
        key=evil,
        git=evil,
        packages={evil: evil},
        python=evil,
        host={},
        wall_seconds=1.0,
        facts=ExampleFacts(train=1, validation=1),
    )
    results = dataclasses.replace(
        passed,
        learned_vs_target=dataclasses.replace(check, points=check.points.assign(attribute=evil)),
        name=evil,
        record=passed.record.model_copy(update={"model": ModelFile(name=evil)}),
        comparisons=[dataclasses.replace(first, name=evil, reasons={evil: 2}), *others],
        contexts={**passed.contexts, name: dataclasses.replace(context, attributes=(attribute,) * 5)},
        stages={evil: made},
    )
    caption = dataclasses.replace(figures[0], title=f'{evil}"', caption=evil)
    html = written(results, [caption], tmp_path)
    assert "<b>R" not in html
    page = Page(html)
    assert page.text.count(evil) >= 8
    assert ("img", "alt", f'{evil}"') in page.attributes


def test_the_same_results_give_the_same_page(passed: RunResults, figures: list[Figure], tmp_path: Path) -> None:
    assert written(passed, figures, tmp_path) == written(passed, figures, tmp_path)


def with_agreement(results: RunResults, **changes: float) -> RunResults:
    first = results.comparisons[0]
    found = dataclasses.replace(first.agreement, valid_reports=60, total_reports=60, **changes)
    return dataclasses.replace(results, comparisons=[dataclasses.replace(first, agreement=found)])


@pytest.mark.parametrize(
    ("r", "low", "high", "p", "said"),
    [
        (0.5, 0.3, 0.7, 0.001, "reports go with the weights that drive decisions in"),
        (-0.5, -0.7, -0.3, 0.001, "reports run against the weights that drive decisions in"),
        (0.1, -0.1, 0.3, 0.4, "there is no evidence that reports follow the weights that drive decisions in"),
        (0.2, 0.05, 0.4, 0.2, "the interval and the permutation test disagree, so that nothing is settled, about"),
        (0.2, -0.05, 0.4, 0.01, "the interval and the permutation test disagree, so that nothing is settled, about"),
        (0.2, math.nan, math.nan, math.nan, "there are too few contexts to say anything about"),
        (math.nan, math.nan, math.nan, math.nan, "no correlation can be computed in"),
    ],
)
def test_the_verdict_says_no_more_than_interval_and_permutation_test(
    passed: RunResults, r: float, low: float, high: float, p: float, said: str
) -> None:
    one = with_agreement(passed, r=r, boot_low=low, boot_high=high, p_permutation=p)
    assert f"On instilled contexts, {said} “off the shelf”" in verdict(one)


def test_the_verdict_names_few_contexts_and_unreadable_reports_but_only_those(passed: RunResults) -> None:
    fine = with_agreement(passed, r=0.5, boot_low=0.3, boot_high=0.7, p_permutation=0.001, n_contexts=100)
    assert "rough" not in verdict(fine)
    assert "could be read" not in verdict(fine)
    assert "overlap" not in verdict(fine)
    told = verdict(passed)
    assert "With as few as 6 contexts" in told
    assert re.search(r"speak only for .*\d+ of 60 behind “instilled” and \d+ of 30 behind “native before”", told)
    assert "60 of 60" not in told


def test_the_verdict_of_a_failed_gate_gives_the_reasons_and_the_cause(passed: RunResults) -> None:
    reasons = ["held-out decisions are few", "r is low", "the prompt differs"]
    told = verdict(dataclasses.replace(passed, gate=GateResult(False, 0.5, math.nan, 0.5, reasons)))
    assert NOT_TESTABLE in told
    assert "since held-out decisions are few, and r is low. Likely cause: the prompt differs." in told
    assert "r\N{NO-BREAK SPACE}=" not in told


def test_a_training_that_was_stopped_early_is_the_cause_and_on_the_page(
    failed: RunResults, passed: RunResults, figures: list[Figure], tmp_path: Path
) -> None:
    reason = "step 9: all one letter, most likely because learning_rate 1 is too high"
    decisions = failed.decisions["instilled", "instilled"]
    training = TrainingFacts(
        base=BaseModelRecord(name="m", revision=None, fingerprint="f"),
        counts=ExampleFacts(train=1, validation=1),
        steps=9,
        stopped_early=reason,
        metrics={},
    )
    stopped = dataclasses.replace(
        failed,
        gate=judge(decisions, failed.learned_vs_target.agreement, reason),
        trainings={"instilled": training},
    )
    assert stopped.gate.reasons[-1] == f"training stopped at {reason}" and len(stopped.gate.reasons) == 3
    assert f"Likely cause: training stopped at {reason}." in verdict(stopped)
    assert summary(stopped).stopped_early == {"instilled": reason}
    said = f"The training of “instilled” was stopped early, at {reason}."
    write_report(stopped, summary(stopped), figures, tmp_path / "report.html")
    assert said in Page((tmp_path / "report.html").read_text()).text
    found = judge(passed.decisions["instilled", "instilled"], passed.learned_vs_target.agreement, reason)
    assert found.passed and not found.reasons, "what was kept is judged by what it does"


def test_a_skill_that_the_base_model_lacks_is_told_with_the_cause(failed: RunResults, passed: RunResults) -> None:
    lacks = "comparing (reading 0.95, comparing 0.55, weighing 0.50 of 20 probes, chance .50): teach that first"
    key = ("instilled", "instilled")
    gate = judge(failed.decisions[key], failed.learned_vs_target.agreement, missing_skill=lacks)
    assert gate.reasons[:-1] == failed.gate.reasons[:-1]
    assert gate.reasons[-1] == f"{failed.gate.reasons[-1]}; the base model lacks {lacks}"
    assert f"; the base model lacks {lacks}." in verdict(dataclasses.replace(failed, gate=gate))
    assert not judge(passed.decisions[key], passed.learned_vs_target.agreement, missing_skill=lacks).reasons


def test_untrustworthy_posteriors_are_counted(passed: RunResults, figures: list[Figure], tmp_path: Path) -> None:
    assert "Pareto" not in Page(written(passed, figures, tmp_path)).text
    arm = passed.measured["instilled"]
    k = np.full_like(arm.pareto_k, 0.2)
    k[:2] = 0.9, math.nan
    doubtful = dataclasses.replace(passed, measured={"instilled": dataclasses.replace(arm, pareto_k=k)})
    assert "The posterior of 2 of 18 fits is not to be trusted" in Page(written(doubtful, figures, tmp_path)).text


def test_the_first_contexts_are_listed_with_target_and_learned_weights(
    passed: RunResults, figures: list[Figure], tmp_path: Path
) -> None:
    page = Page(written(passed, figures, tmp_path))
    arm, names = passed.measured["instilled"], passed.groups["instilled"]
    for name in names[:10]:
        target, learned = passed.targets[name][0], arm.weights[arm.contexts.index(name)][0]
        assert page.row(name, 6)[1] == f"{passed.contexts[name].attribute_names[0]}{target:.0f} → {learned:.0f}"
    assert not [row for row in page.rows if row[0] in names[10:]]
