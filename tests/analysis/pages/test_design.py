"""Figure 1 and the controls: what was made from what, and which comparisons can know nothing."""

from __future__ import annotations

import dataclasses
from pathlib import Path

from analysis.pages.design import control_differences, controls, tree
from analysis.pages.report import write_report
from analysis.pages.study_text import sentence
from analysis.run import summary
from analysis.study.results import RunResults
from analysis.study.several import study_run
from analysis.study.verdicts import judge_claims
from store.run import ArmRecord

MADE = {
    "off_the_shelf": ArmRecord(),
    "instilled": ArmRecord(training="instilled", teach="decisions", contexts="instilled"),
    "introspection": ArmRecord(training="introspection", teach="reports", start="instilled", labels="shuffled"),
    "half": ArmRecord(derived={"instilled": [{"weight": 0.5}], "introspection": [{"weight": -1.0}]}),
}


def made(results: RunResults) -> RunResults:
    """The same answers, of arms that were made otherwise."""
    return dataclasses.replace(results, record=results.record.model_copy(update={"arms": MADE}))


def test_an_arm_stands_under_the_one_that_it_was_trained_from(passed: RunResults):
    base, half = tree(made(passed))
    assert (base.arm, base.made, base.asked) == ("off_the_shelf", "before any training", ["60 reports on 12 instilled"])
    [instilled] = base.children
    assert (instilled.arm, instilled.made) == ("instilled", "taught decisions on instilled contexts")
    assert instilled.asked == [
        "1,440 decisions on 12 instilled and 6 native",
        "90 reports on 12 instilled and 6 native",
    ]
    [introspection] = instilled.children
    assert introspection.made == "taught reports by training “introspection”, shuffled labels"
    assert half.made == "a sum of adapters: 0.5 of instilled + -1 of introspection"
    assert [node.arm for node in tree(passed)] == [*passed.record.arms], "planted arms stand side by side"


def test_controls_are_told_by_how_their_arms_were_made_and_asked(passed: RunResults):
    found = {c.name: why for c, why in controls(made(passed))}
    assert [*found] == ["off_the_shelf", "introspection_trained"]
    assert found["introspection_trained"].startswith("trained on the weights of other contexts")
    assert control_differences(made(passed)) == {"gain": "beside introspection trained"}
    assert [c.name for c, _ in controls(passed)] == ["off_the_shelf"] and control_differences(passed) == {}
    second = passed.comparisons[1]
    other = [source.model_copy(update={"variant": "third_person"}) for source in second.reported_by]
    asked = dataclasses.replace(passed, comparisons=[dataclasses.replace(second, reported_by=other)])
    assert [why for _, why in controls(asked)] == ["asked otherwise: instilled (third person)"]


def test_another_instillation_is_a_control(passed: RunResults):
    arms = {**MADE, "twin": ArmRecord(training="twin", teach="decisions", contexts="instilled")}
    record = passed.record.model_copy(update={"arms": arms})
    second = passed.comparisons[1]
    twin = [source.model_copy(update={"arm": "twin"}) for source in second.reported_by]
    results = dataclasses.replace(passed, record=record, comparisons=[dataclasses.replace(second, reported_by=twin)])
    assert [why for _, why in controls(results)] == ["held against the weights of instilled, another instillation"]


def test_the_page_has_a_row_for_the_verdict_on_every_claim(passed: RunResults, failed: RunResults, tmp_path: Path):
    for results in (passed, failed):
        told = summary(results)
        write_report(results, told, [], tmp_path / "report.html")
        page = (tmp_path / "report.html").read_text()
        studied = study_run(results.record, told, results.run.path)
        for verdict in judge_claims([studied], studied.smallest):
            assert f"<th>{verdict.claim.words}</th>" in page
            assert f"<td>{sentence(verdict)}</td>" in page.replace("&#39;", "'")
    assert "supported" not in page.split("Verdicts</h2>")[1].split("How to read")[0], "none where the gate failed"
