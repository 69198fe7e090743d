"""Families of comparisons and effects that were not found."""

from __future__ import annotations

import dataclasses
import math

import numpy as np
import pytest
from statsmodels.stats.multitest import multipletests

from analysis.run import summary
from analysis.stats.agreement import pearson
from analysis.study.comparisons import paired_sides
from analysis.study.families import difference_is_small, holm, r_is_small
from analysis.study.results import RunResults


def test_holm_is_its_definition_and_what_is_not_testable_does_not_count():
    found = holm({"a": 0.01, "b": 0.04, "untested": math.nan, "c": 0.03})
    assert found["a"] == pytest.approx(0.03)
    assert found["c"] == found["b"] == pytest.approx(0.06)
    assert math.isnan(found["untested"]) and list(found) == ["a", "b", "untested", "c"]
    assert holm({}) == {} and math.isnan(holm({"x": math.nan})["x"])


def test_holm_is_that_of_statsmodels():
    p = np.random.default_rng(2).random(9) ** 3
    found = holm({str(i): value for i, value in enumerate(p)})
    assert list(found.values()) == pytest.approx(multipletests(p, method="holm")[1])


def test_any_false_finding_in_a_family_has_a_chance_of_five_percent():
    rng = np.random.default_rng(0)
    false = [min(holm(dict(zip("abcde", rng.random(5), strict=True))).values()) < 0.05 for _ in range(2000)]
    assert 0.03 < np.mean(false) < 0.07


def test_no_correlation_is_shown_to_be_small_in_many_contexts_and_not_in_few():
    rng = np.random.default_rng(1)
    x, y = rng.normal(size=(2, 400, 5))
    x[0] = np.nan
    assert abs(pearson(x, y)) < 0.05 and r_is_small(x, y, 0.1, seed=0) < 0.05
    assert r_is_small(x[:20], y[:20], 0.1, seed=0) > 0.05
    assert r_is_small(y + x, y, 0.1, seed=0) > 0.99
    assert difference_is_small(x, x + 0.05 * rng.normal(size=x.shape), y, 0.1, seed=0) < 0.001
    assert difference_is_small(x, y, y, 0.1, seed=0) > 0.99


def named(results: RunResults, **changes: object) -> RunResults:
    return dataclasses.replace(results, record=results.record.model_copy(update=changes))


def test_a_summary_has_the_families_and_tests_that_the_experiment_names(passed: RunResults, failed: RunResults):
    family = {"main": ["instilled", "off_the_shelf", "gain"]}
    found = summary(named(passed, families=family, smallest_effect=0.2))
    raw = {name: found.comparisons[name].p_permutation for name in family["main"][:2]}
    gain = found.differences["gain"]
    assert gain.p_bootstrap == passed.differences[0].found.p_bootstrap
    assert found.families["main"] == pytest.approx(holm({**raw, "gain": gain.p_bootstrap}))
    assert found.smallest_effect == 0.2
    x, y = passed.comparisons[0].sides
    assert found.comparisons["off_the_shelf"].p_equivalence == pytest.approx(r_is_small(x, y, 0.2, passed.seed))
    x1, x2, y = paired_sides(*passed.comparisons[1:3])
    assert gain.p_equivalence == pytest.approx(difference_is_small(x1, x2, y, 0.2, passed.seed))
    assert gain.difference == pytest.approx(pearson(x2, y) - pearson(x1, y))
    none = summary(named(failed, families=family, smallest_effect=0.2))
    assert set(none.families["main"].values()) == {None}
    assert none.differences["gain"].p_equivalence is None is none.comparisons["instilled"].p_equivalence
    plain = summary(passed)
    assert plain.families == {} and plain.smallest_effect is None is plain.comparisons["instilled"].p_equivalence
