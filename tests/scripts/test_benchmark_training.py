from pathlib import Path

import pytest

from scripts.benchmarks.training import RECIPES, compare, write_rows


def test_all_recipes_have_the_same_loss_and_sharing_computes_fewer_tokens(tiny_model: Path, tmp_path: Path):
    found = compare(str(tiny_model), write_rows(tmp_path, 2), tmp_path)
    assert [entry["recipe"] for entry in found] == [recipe.name for recipe in RECIPES]
    assert [entry["loss_difference"] for entry in found] == pytest.approx([0.0] * len(found), abs=1e-5)
    assert all(entry["loss"] > 0.1 for entry in found)
    plain, full, ours, four, eight = (entry["tokens"] for entry in found)
    assert plain == full == ours > 1.3 * four and four > eight
    fastest = max(entry["examples_per_second"] for entry in found[:2])
    for entry in found:
        assert entry["ratio"] == pytest.approx(entry["examples_per_second"] / fastest, abs=0.006)
