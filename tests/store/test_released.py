"""The paper's released files: small ones written here, and the real ones where they are at hand."""

from __future__ import annotations

import gzip
import json
import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from store.contexts import load_contexts, load_released_contexts
from store.released import load_reports, load_selections
from task.contexts import Attribute, ChoiceContext
from task.errors import InputError

RELEASED = Path(__file__).resolve().parents[3] / "shared" / "released"
MODEL = "gpt-4o-mini-2024-07-18"
needs_release = pytest.mark.skipif(
    not RELEASED.is_dir(), reason="the paper's released files are not beside the repository"
)

SCENARIOS = """scenario,question,attr1,attr2,attr1_min,attr2_min,attr1_max,attr2_max
bag,Imagine you are Dr. Evil. Which bag of chips would you prefer?,salt_level,crunch,0.0,1.0,9.5,10.0
tea,"Imagine you are Sitting Bull, aged 9. Which tea would you prefer?",caffeine,price,0.0,-1.5,70.0,2.0
"""
CANDIDATES = [
    {
        "short_name": name,
        "question": "Which?",
        "attributes": [{"name": n, "units": u, "range": r} for n, u, r in attributes],
    }
    for name, attributes in {
        "unused": [("a", "b", [0, 1]), ("c", "d", [0, 1])],
        "tea": [("caffeine", "mg", [0, 70]), ("price", "€", [-1.5, 2])],
        "bag": [("salt_level", "g", [0, 9.5]), ("crunch", "score", [1, 10])],
    }.items()
]
SELECTIONS = """model,scenario,selection,A_attribute_1,A_attribute_2,B_attribute_1,B_attribute_2
m,bag,A,1.0,2.0,3.0,4.0
m,bag,B,1.5,2.0,3.0,4.0
m,tea,refused,1.0,2.0,3.0,-4.5
m,tea,,1.0,2.0,3.0,4.0
m,tea,"""
REPORTS = """model,version,scenario,report_attr1,report_attr2,A_attribute_1,A_attribute_2,B_attribute_1,B_attribute_2
m,v,bag,50,-100,1.0,2.0,3.0,4.0
m,v,bag,,-100,5.0,6.0,7.0,8.0
m,v,tea,2388,0.5,1.0,2.0,3.0,4.0
m,v,tea,high,3,1.0,2.0,3.0,4.0
m,v,tea,4,nan,1.0,2.0,3.0,4.0
"""


def test_contexts_take_order_and_agents_from_one_file_and_units_from_the_other(tmp_path: Path):
    (tmp_path / "scenarios.csv").write_text(SCENARIOS)
    (tmp_path / "candidate_scenarios.json").write_text(json.dumps(CANDIDATES))
    bag = ChoiceContext(
        "bag",
        "Dr. Evil",
        "Which bag of chips would you prefer?",
        (Attribute("salt_level", "g", 0, 9.5), Attribute("crunch", "score", 1, 10)),
    )
    tea = ChoiceContext(
        "tea",
        "Sitting Bull, aged 9",
        "Which tea would you prefer?",
        (Attribute("caffeine", "mg", 0, 70), Attribute("price", "€", -1.5, 2)),
    )
    assert load_released_contexts(tmp_path) == [bag, tea]
    assert load_contexts(tmp_path / "candidate_scenarios.json", 1) == [bag]
    assert load_contexts(tmp_path / "scenarios.csv") == [bag, tea]


def test_contexts_load_without_the_units(tmp_path: Path):
    (tmp_path / "scenarios.csv").write_text(SCENARIOS)
    bag, tea = load_released_contexts(tmp_path)
    assert bag.attributes == (Attribute("salt_level", "", 0, 9.5), Attribute("crunch", "", 1, 10))
    assert tea.attributes == (Attribute("caffeine", "", 0, 70), Attribute("price", "", -1.5, 2))


def test_without_the_agents_there_are_no_contexts(tmp_path: Path):
    (tmp_path / "candidate_scenarios.json").write_text(json.dumps(CANDIDATES))
    with pytest.raises(InputError, match=r"scenarios\.csv: no such file; the agents"):
        load_contexts(tmp_path / "candidate_scenarios.json")


@pytest.mark.parametrize(
    ("old", "new", "fragments"),
    [
        ("Imagine you are Dr. Evil. Which", "Which", [":2", "'Which bag", "Imagine you are X"]),
        ("attr2_max", "attr2_top", [":1", "'attr2_max' is missing"]),
        (",70.0,2.0", ",70.0", [":3", "7 cells", "8"]),
        ("9.5", "much", [":2", "attr1_max", "'much'"]),
        ("9.5", "9_5", [":2", "attr1_max", "'9_5'", "finite number"]),
        ("0.0,1.0,9.5", "9.5,1.0,0.0", [":2", "'salt_level'", "[9.5, 0]", "below"]),
        ("0.0,1.0,9.5", "0.0,1.0,0.0", [":2", "'salt_level'", "[0, 0]", "below"]),
        (",70.0,2.0", ",70.0,2.5", [":3", "'tea'", "ranges", "candidate_scenarios.json"]),
        ('tea,"', 'bag,"', [":3", "'bag' again", "line 2"]),
        ("attr2_max", "attr1_max", [":1", "'attr1_max' is there twice"]),
        ("bag,", "bags,", [":2", "'bags'", "candidate_scenarios.json"]),
        ("salt_level,crunch", "crunch,salt_level", [":2", "'bag'", "candidate_scenarios.json"]),
    ],
)
def test_a_defect_of_the_contexts_is_one_line(tmp_path: Path, old: str, new: str, fragments: list[str]):
    assert old in SCENARIOS
    (tmp_path / "scenarios.csv").write_text(SCENARIOS.replace(old, new))
    (tmp_path / "candidate_scenarios.json").write_text(json.dumps(CANDIDATES))
    expect_line(load_released_contexts, tmp_path, str(tmp_path / "scenarios.csv"), fragments)


@pytest.mark.parametrize(
    "text",
    ["", "{", "[1]", '[{"short_name": "tea"}]', '{"tea": 1}', "[NaN]", '[{"a": 1, "a": 2}]', '["\\ud800"]', "[" * 9999],
)
def test_a_defect_of_the_units_is_one_line(tmp_path: Path, text: str):
    (tmp_path / "scenarios.csv").write_text(SCENARIOS)
    (tmp_path / "candidate_scenarios.json").write_text(text)
    expect_line(load_released_contexts, tmp_path, str(tmp_path / "candidate_scenarios.json"), ["not the released list"])


def expect_line(load: Callable[[Path], object], path: Path, start: str, fragments: list[str]):
    with pytest.raises(InputError) as caught:
        load(path)
    message = str(caught.value)
    assert message.startswith(start)
    assert "\n" not in message
    assert all(fragment in message for fragment in fragments), message


@pytest.mark.parametrize(
    ("old", "new", "fragments"),
    [
        ("[1, 10]", "[10, 1]", ["context 3", "'crunch'", "[10, 1]", "below"]),
        ("[1, 10]", '["1", 10]', ["context 3", "finite number"]),
        ("[1, 10]", "[1, 1e999]", ["context 3", "finite number"]),
        ('"unused"', '"tea"', ["context 2", "'tea' again", "other attributes"]),
    ],
)
def test_a_defect_among_the_units_is_named(tmp_path: Path, old: str, new: str, fragments: list[str]):
    text = json.dumps(CANDIDATES)
    assert old in text
    (tmp_path / "scenarios.csv").write_text(SCENARIOS)
    (tmp_path / "candidate_scenarios.json").write_text(text.replace(old, new))
    expect_line(load_released_contexts, tmp_path, str(tmp_path / "candidate_scenarios.json"), fragments)


def test_a_context_that_is_said_twice_alike_is_read_once_and_told(tmp_path: Path):
    (tmp_path / "scenarios.csv").write_text(SCENARIOS)
    (tmp_path / "candidate_scenarios.json").write_text(json.dumps(CANDIDATES))
    once, told = load_released_contexts(tmp_path), []
    (tmp_path / "scenarios.csv").write_text(SCENARIOS + SCENARIOS.splitlines()[1] + "\n")
    (tmp_path / "candidate_scenarios.json").write_text(json.dumps([*CANDIDATES, CANDIDATES[1]]))
    assert load_released_contexts(tmp_path, told.append) == once
    assert told == ["scenarios.csv: rows that repeat an earlier one, left out: 1, the first in line 4"]


def test_repeated_rows_and_letters_in_lower_case_are_counted(tmp_path: Path):
    path = tmp_path / "selections.csv"
    rows = SELECTIONS.removesuffix("m,tea,").replace(",A,", ", a ,")
    path.write_text(rows + rows.splitlines()[2] + "\n")
    selections = load_selections(path)
    np.testing.assert_array_equal(selections.chose_a, [1, 0, np.nan, np.nan])
    assert selections.notes == (
        "selections.csv: rows that repeat an earlier one, left out: 1, the first in line 6",
        "selections.csv: selections in lower case, read as letters: 1",
    )
    path.write_text(rows.rstrip())
    assert "the last line has no line break" in load_selections(path).notes[0]


def test_reports_may_be_alike_where_it_is_not_said_what_each_was_about(tmp_path: Path):
    path = tmp_path / "reports.csv"
    header, *rows = REPORTS.splitlines()
    path.write_text("\n".join([header, *rows, rows[0]]) + "\n")
    reports = load_reports(path)
    assert len(reports.values) == 5
    assert reports.notes == (
        "reports.csv: rows that repeat an earlier one, left out: 1, the first in line 7",
        "reports.csv: reports with a cell that is no number, counted as missing: 3, the first in line 3",
    )
    path.write_text("scenario,report_attr1\nbag,50\nbag,50\nbag,4\n")
    reports = load_reports(path)
    assert reports.values[:, 0].tolist() == [50, 50, 4]
    assert reports.notes == ("reports.csv: reports equal to an earlier one, all kept: 1",)


@pytest.mark.parametrize("cell", ["1_000", "0x1f", "٣", "inf", "nan", "5%", "1,5", "--5", "1e999", "½", ""])
def test_a_number_is_read_as_a_number_and_nothing_else(tmp_path: Path, cell: str):
    path = tmp_path / "reports.csv"
    path.write_text(f'scenario,report_attr1\nbag,"{cell}"\nbag,1e1\nbag," -5 "\nbag,.5\n')
    np.testing.assert_array_equal(load_reports(path).values[:, 0], [np.nan, 10, -5, 0.5])
    path.write_text(f'scenario,selection,A_attribute_1,B_attribute_1\nbag,A,1,"{cell}"\n')
    expect_line(load_selections, path, f"{path}:2", ["B_attribute_1", "finite number"])


@pytest.mark.parametrize(
    ("content", "fragment"),
    [
        (gzip.compress(SELECTIONS.encode(), mtime=0), "gzip"),
        (SELECTIONS.encode("utf-16"), "UTF-16"),
        (SELECTIONS.encode("utf-16-le"), "zero byte"),
        (SELECTIONS.replace("refused", "caf\xe9").encode("latin-1"), ":4: not UTF-8 text"),
        (SELECTIONS.replace(",", ";").encode(), "separated by commas"),
        (SELECTIONS.replace(",", "\t").encode(), "separated by commas"),
        (SELECTIONS.replace("model", "selection").encode(), "'selection' is there twice"),
    ],
)
def test_another_encoding_or_delimiter_is_one_line(tmp_path: Path, content: bytes, fragment: str):
    path = tmp_path / "selections.csv"
    path.write_bytes(content)
    expect_line(load_selections, path, str(path), [fragment])


def test_selections_that_are_no_letter_are_missing(tmp_path: Path):
    path = tmp_path / "selections.csv"
    path.write_text(SELECTIONS.removesuffix("m,tea,"), encoding="utf-8-sig")
    selections = load_selections(path)
    assert selections.scenario.tolist() == ["bag", "bag", "tea", "tea"]
    np.testing.assert_array_equal(selections.chose_a, [1, 0, np.nan, np.nan])
    np.testing.assert_array_equal(selections.option_a, [[1, 2], [1.5, 2], [1, 2], [1, 2]])
    np.testing.assert_array_equal(selections.option_b, [[3, 4], [3, 4], [3, -4.5], [3, 4]])


def test_reports_with_an_unreadable_cell_are_missing_as_a_whole(tmp_path: Path):
    path = tmp_path / "reports.csv"
    path.write_text(REPORTS)
    reports = load_reports(path)
    assert reports.scenario.tolist() == ["bag", "bag", "tea", "tea", "tea"]
    missing = [np.nan, np.nan]
    np.testing.assert_array_equal(reports.values, [[50, -100], missing, [2388, 0.5], missing, missing])


def test_columns_are_found_by_name(tmp_path: Path):
    path = tmp_path / "reports.csv"
    path.write_text(REPORTS)
    expected = load_reports(path)
    rows = [line.split(",") for line in REPORTS.splitlines()]
    path.write_text("".join(",".join(reversed(row)) + "\n" for row in rows))
    reordered = load_reports(path)
    for name in ("scenario", "values"):
        np.testing.assert_array_equal(getattr(reordered, name), getattr(expected, name))


def test_a_header_alone_gives_zero_rows(tmp_path: Path):
    path = tmp_path / "trials.csv"
    path.write_text(REPORTS.splitlines()[0] + "\n")
    reports = load_reports(path)
    assert reports.scenario.shape == (0,)
    assert reports.values.shape == (0, 2)
    path.write_text(SELECTIONS.splitlines()[0])
    selections = load_selections(path)
    assert selections.scenario.shape == selections.chose_a.shape == (0,)
    assert selections.option_a.shape == selections.option_b.shape == (0, 2)


@pytest.mark.parametrize(
    ("load", "text", "fragments"),
    [
        (load_selections, SELECTIONS, [":6", "3 cells", "7"]),
        (load_selections, SELECTIONS + "A,1,2,3,x", [":6", "B_attribute_2", "'x'"]),
        (load_selections, SELECTIONS + "A,1,,3,4", [":6", "A_attribute_2", "''"]),
        (load_selections, SELECTIONS.replace("selection", "choice"), [":1", "'selection' is missing", "choice"]),
        (load_selections, SELECTIONS.replace("A_attribute_2", "other"), [":1", "'A_attribute_2' is missing"]),
        (load_selections, "", [":1", "'scenario' is missing"]),
        (load_selections, REPORTS, [":1", "'selection' is missing"]),
        (load_reports, SELECTIONS, [":1", "'report_attr1' is missing"]),
        (load_reports, REPORTS.replace("report_attr2", "report_attr3"), [":1", "'report_attr2' is missing"]),
        (load_reports, REPORTS + "m,v,tea,4,5,1.0\n", [":7", "6 cells", "9"]),
        (load_reports, REPORTS + "m,v,tea,4,5,1,2,3,4,5\n", [":7", "10 cells", "9"]),
        (load_selections, SELECTIONS + "A,1,inf,3,4", [":6", "A_attribute_2", "'inf'"]),
    ],
)
def test_a_defect_of_the_trials_is_one_line(
    tmp_path: Path, load: Callable[[Path], object], text: str, fragments: list[str]
):
    path = tmp_path / "trials.csv"
    path.write_text(text)
    expect_line(load, path, str(path), fragments)


@pytest.mark.parametrize("load", [load_selections, load_reports])
def test_a_file_that_is_missing_or_no_text_is_named(tmp_path: Path, load: Callable[[Path], object]):
    path = tmp_path / "trials.csv"
    expect_line(load, path, str(path), ["no such file"])
    path.write_bytes(b"\x80\x02\xff\xfe")
    expect_line(load, path, str(path), ["not UTF-8 text", "0x80"])


@needs_release
def test_the_released_contexts_load():
    contexts = load_contexts(RELEASED / "candidate_scenarios.json")
    assert len(contexts) == 1100
    first = contexts[0]
    assert (first.name, first.agent) == ("loose_leaf_tea", "Djedefre")
    assert first.question == "Which loose leaf tea would you prefer?"
    assert first.attributes[1] == Attribute("leaf_size", "millimeters", 0.1, 10)
    assert {len(c.attributes) for c in contexts} == {5}
    assert sum(c.agent in ("Dr. Manhattan", "Madam C.J. Walker", "Pearl S. Buck") for c in contexts) == 3


@needs_release
def test_the_two_released_files_agree_on_the_ranges(tmp_path: Path):
    shutil.copy(RELEASED / "scenarios.csv", tmp_path)
    for alone, both in zip(load_released_contexts(tmp_path), load_released_contexts(RELEASED), strict=True):
        assert (alone.name, alone.agent, alone.attribute_names) == (both.name, both.agent, both.attribute_names)
        np.testing.assert_array_equal(alone.lows, both.lows)
        np.testing.assert_array_equal(alone.spans, both.spans)


@needs_release
@pytest.mark.parametrize(("name", "rows", "chose_a"), [("instilled", 5000, 2540), ("instilled_latent", 10000, 4945)])
def test_released_selections_load(name: str, rows: int, chose_a: int):
    selections = load_selections(RELEASED / f"{MODEL}_{name}_selections.csv")
    assert selections.chose_a.shape == (rows,)
    assert selections.chose_a.sum() == chose_a
    names, counts = np.unique(selections.scenario, return_counts=True)
    assert len(names) == 100
    assert {*counts.tolist()} == {rows // 100}
    assert selections.option_a.shape == selections.option_b.shape == (rows, 5)


@needs_release
def test_released_values_have_the_decimals_of_our_grid():
    contexts = {c.name: c for c in load_released_contexts(RELEASED)}
    selections = load_selections(RELEASED / f"{MODEL}_instilled_selections.csv")
    for name in np.unique(selections.scenario):
        values = np.vstack(
            [option[selections.scenario == name] for option in (selections.option_a, selections.option_b)]
        )
        shown = [max(len(f"{value:.12g}".partition(".")[2]) for value in column) for column in values.T]
        assert shown == [a.decimals for a in contexts[name].attributes]


@needs_release
@pytest.mark.parametrize(
    ("name", "rows", "contexts"),
    [
        ("instilled", 574, 79),
        ("instilled_latent", 590, 76),
        ("itrained_all_100_50ex_latent", 999, 100),
        ("itrained_first_50_of_100_50ex", 500, 50),
        ("itrained_last_50_of_100_50ex", 494, 50),
        (None, 877, 96),
    ],
)
def test_released_reports_load(name: str | None, rows: int, contexts: int):
    reports = load_reports(RELEASED / f"{MODEL}{f'_{name}' if name else ''}_weight_reports.csv")
    assert reports.values.shape == (rows, 5)
    assert not np.isnan(reports.values).any()
    assert len(np.unique(reports.scenario)) == contexts


@needs_release
def test_values_beyond_the_scale_are_kept():
    reports = load_reports(RELEASED / f"{MODEL}_instilled_latent_weight_reports.csv")
    assert np.abs(reports.values).max() == 2388
