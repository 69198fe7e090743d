"""Files of attribution and patching: what is written is read, and what does not fit is refused."""

from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest

from store.inside_tables import (
    OUTSIDE,
    PATCHING,
    SCORES,
    Patched,
    Rows,
    Scores,
    read_patching,
    read_scores,
    write_patching,
    write_scores,
)
from task.errors import InputError

ROWS = Rows(
    layer=np.array([OUTSIDE, 0, 0, 1], dtype=np.int32),
    matrix=np.array(["embed_tokens", "self_attn.q_proj", "self_attn.q_proj", "mlp.down_proj"]),
    factor=np.array(["A", "A", "B", "B"]),
    row=np.array([0, 1, 0, 7], dtype=np.int32),
)
SAMPLE = Scores(("one", "two"), ROWS, np.arange(8.0).reshape(2, 4) / 3)


def test_scores_come_back_as_they_were_written(tmp_path: Path):
    write_scores(tmp_path, SAMPLE)
    found = read_scores(tmp_path)
    assert found.contexts == SAMPLE.contexts
    assert np.array_equal(found.values, SAMPLE.values)
    for name in ("layer", "matrix", "factor", "row"):
        assert np.array_equal(getattr(found.rows, name), getattr(ROWS, name))
    table = pq.read_table(tmp_path / SCORES)
    assert {field.name: str(field.type) for field in table.schema} == {
        "context": "string",
        "layer": "int32",
        "matrix": "string",
        "factor": "string",
        "row": "int32",
        "score": "double",
    }
    assert not [path for path in tmp_path.iterdir() if path.name.startswith(".")], "no draft is left"


@pytest.mark.parametrize("damage", ["a row is missing", "a context stands twice", "rows in another order"])
def test_scores_of_different_rows_are_refused(tmp_path: Path, damage: str):
    write_scores(tmp_path, SAMPLE)
    table = pq.read_table(tmp_path / SCORES)
    order = {
        "a row is missing": [0, 1, 2, 3, 4, 5, 6],
        "a context stands twice": [*range(8), *range(4)],
        "rows in another order": [0, 1, 2, 3, 4, 6, 5, 7],
    }[damage]
    pq.write_table(table.take(np.array(order, dtype=np.int64)), tmp_path / SCORES)
    with pytest.raises(InputError, match=r"scores\.parquet: its contexts do not have scores of the same rows"):
        read_scores(tmp_path)


def test_a_file_without_scores_says_why(tmp_path: Path):
    write_scores(tmp_path, Scores((), ROWS, np.empty((0, 4))))
    with pytest.raises(InputError, match="no context has scores, as no report could be read"):
        read_scores(tmp_path)


def test_patching_comes_back_as_it_was_written(tmp_path: Path):
    rows = [
        Patched("deciding", "random", 2, 4, "one", 0.25, 1.5),
        Patched("reporting", "deciding", 0, 1, "two", 0.0, 2.0),
    ]
    write_patching(tmp_path, rows)
    assert read_patching(tmp_path) == rows


def test_a_file_that_is_no_such_file_is_refused_in_one_line(tmp_path: Path):
    with pytest.raises(InputError, match="no such file; run the stage"):
        read_scores(tmp_path)
    (tmp_path / SCORES).write_text("no Parquet")
    with pytest.raises(InputError, match="no whole Parquet file"):
        read_scores(tmp_path)
    write_scores(tmp_path, SAMPLE)
    (tmp_path / SCORES).rename(tmp_path / PATCHING)
    with pytest.raises(InputError, match="its columns are"):
        read_patching(tmp_path)
