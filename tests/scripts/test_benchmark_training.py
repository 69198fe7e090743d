from pathlib import Path

import pytest

from scripts.benchmarks.training import RECIPES, compare, write_rows


def test_all_recipes_have_the_same_loss_and_sharing_computes_fewer_tokens(tiny_model: Path, tmp_path: Path):
    said: list[str] = []
    found = compare(str(tiny_model), write_rows(tmp_path, 2, 8), tmp_path, said.append)
    assert len(said) == len(found) == len(RECIPES)
    assert [entry["loss_difference"] for entry in found] == pytest.approx([0.0] * len(found), abs=1e-5)
    plain, full, ours, four, eight = (entry["tokens"] for entry in found)
    assert plain == full == ours > 1.3 * four and four > eight
    assert sum(entry["ratio"] == 1.0 for entry in found[:2]) >= 1, "the faster plain recipe is the measure"
