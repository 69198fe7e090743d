"""Differences between comparisons, paired by context."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import numpy as np
import pytest

from analysis.pages.report import write_report
from analysis.run import summary
from analysis.study.comparisons import differ
from analysis.study.results import RunResults


def test_is_the_difference_of_the_two_correlations(passed: RunResults):
    """All contexts have reports in both comparisons here, so the pairing drops none."""
    by_name = {c.name: c.agreement.r for c in passed.comparisons}
    [found] = passed.differences
    assert found.found.difference == pytest.approx(by_name["introspection_trained"] - by_name["instilled"])
    assert found.found.n_contexts == 12
    assert found.found.boot_low < found.found.difference < found.found.boot_high


def test_does_not_depend_on_the_order_of_the_contexts(passed: RunResults):
    """Arms of several folds list the contexts fold by fold."""
    entry = passed.record.differences[0]
    turned = [
        dataclasses.replace(c, points=c.points.iloc[np.r_[30:60, 0:30]]) if c.name == "instilled" else c
        for c in passed.comparisons
    ]
    assert not turned[1].points["context"].equals(passed.comparisons[1].points["context"])
    assert differ(entry, turned, 0).found == differ(entry, passed.comparisons, 0).found


def test_is_withheld_where_the_gate_was_not_passed(passed: RunResults, failed: RunResults, tmp_path: Path):
    shown, withheld = summary(passed).differences["gain"], summary(failed).differences["gain"]
    assert shown.difference == passed.differences[0].found.difference
    assert withheld.difference is None
    assert withheld.testable is False
    for results, count in ((passed, 1), (failed, 0)):
        write_report(results, summary(results), [], tmp_path / "report.html")
        page = (tmp_path / "report.html").read_text()
        assert page.count("r(introspection_trained) - r(instilled)") == count
