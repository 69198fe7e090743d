"""Three treatments of missing reports, against computation by hand."""

from __future__ import annotations

import numpy as np
import pytest

from analysis.stats.agreement import bootstrap_r
from analysis.stats.variants import AS_ZERO, COMPLETE, SHARED, treat_missing

NAN = [np.nan, np.nan]
WEIGHTS = np.array([[100.0, -40], [-100, 20], [30, 100], [60, -100]])
REPORTS = {
    # Of 2 asked for: both; one; none; one.
    "before": np.array([[[40.0, 0], [60, -20]], [NAN, [-50, 30]], [NAN, NAN], [[80, 10], NAN]]),
    # One report lacks an attribute, and so counts for nothing.
    "after": np.array([[[90.0, -10], [np.nan, 70]], [NAN, NAN], [[20, 60], [40, 80]], [[50, -70], [70, -50]]]),
}
ASKED = {"before": np.full(4, 2), "after": np.full(4, 2)}


def r_by_hand(x: list[list[float]], contexts: list[int]) -> float:
    return float(np.corrcoef(np.ravel(x), WEIGHTS[contexts].ravel())[0, 1])


EXPECTED = {
    (COMPLETE, "before"): ([[50, -10], [-50, 30], [80, 10]], [0, 1, 3]),
    (COMPLETE, "after"): ([[90, -10], [30, 70], [60, -60]], [0, 2, 3]),
    (SHARED, "before"): ([[50, -10], [80, 10]], [0, 3]),
    (SHARED, "after"): ([[90, -10], [60, -60]], [0, 3]),
    (AS_ZERO, "before"): ([[50, -10], [-25, 15], [0, 0], [40, 5]], [0, 1, 2, 3]),
    (AS_ZERO, "after"): ([[45, -5], [0, 0], [30, 70], [60, -60]], [0, 1, 2, 3]),
}


def test_each_treatment_is_as_by_hand():
    found = treat_missing(REPORTS, ASKED, WEIGHTS, seed=4)
    assert [(t.treatment, t.reports) for t in found] == list(EXPECTED)
    for t in found:
        x, contexts = EXPECTED[t.treatment, t.reports]
        assert t.r == pytest.approx(r_by_hand(x, contexts))
        assert (t.n_contexts, t.n_points) == (len(contexts), 2 * len(contexts))
        assert (t.boot_low, t.boot_high) == bootstrap_r(x, WEIGHTS[contexts], seed=4)


def test_contexts_without_weights_or_without_a_question_stay_out_of_every_treatment():
    weights = WEIGHTS.copy()
    weights[0] = np.nan
    found = {(t.treatment, t.reports): t for t in treat_missing(REPORTS, ASKED, weights, seed=0)}
    assert {t: found[t, "before"].n_contexts for t in (COMPLETE, SHARED, AS_ZERO)} == {
        COMPLETE: 2,
        SHARED: 1,
        AS_ZERO: 3,
    }
    asked = {"before": np.array([2, 2, 0, 2])}
    zero = treat_missing({"before": REPORTS["before"]}, asked, WEIGHTS, seed=0)[2]
    assert zero.n_contexts == 3 and zero.r == pytest.approx(r_by_hand([[50, -10], [-25, 15], [40, 5]], [0, 1, 3]))


def test_a_set_without_any_report_has_no_r_but_as_dict_is_json():
    nothing = {"silent": np.full((4, 2, 2), np.nan)}
    found = treat_missing(nothing, {"silent": np.full(4, 2)}, WEIGHTS, seed=0)
    assert found[0].as_dict() == {
        "reports": "silent",
        "treatment": COMPLETE,
        "r": None,
        "boot_low": None,
        "boot_high": None,
        "n_points": 0,
        "n_contexts": 0,
    }
    assert found[2].n_contexts == 4 and found[2].as_dict()["r"] is None  # all zeros: no variation
