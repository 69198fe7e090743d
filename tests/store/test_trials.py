"""Trial files: written and read by the same columns; what is not as it says is refused."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from store.contexts import DATA, load_contexts
from store.manifests import Answering, DecisionFacts, ReportFacts, read_manifest
from store.shards import merge_shards, remove_shards, write_shard, written_shards
from store.stages import Stage
from store.trial_facts import trial_facts
from store.trials import METADATA, TRIALS, Report, TrialColumns, read_decisions, read_reports
from task.errors import InputError
from task.prompts import PROMPTS, frame
from task.replies import Decided, parse_report
from task.trials import ShownTrial, sample_trials

CONTEXTS = load_contexts(DATA / "instilled.jsonl", 3)
BY_NAME = {context.name: context for context in CONTEXTS}
ALL = [(measure, variant) for measure, variants in PROMPTS.items() for variant in variants]
SPEED = Answering(seconds=1.0, trials_per_second=2.0)
PAIRS = {0: 4, 1: 2, 2: 4}
"""Pairs of each context."""


def shown(measure: Any, orders: tuple[bool, ...]) -> list[tuple[str, ShownTrial]]:
    """Trials of the contexts, the second of which has fewer."""
    found = []
    for place, context in enumerate(CONTEXTS):
        trials = sample_trials(0, measure, context, PAIRS[place])
        for i in range(PAIRS[place]):
            found += [
                ("g", ShownTrial(frame(measure, context), i, trials.first[i], trials.second[i], order))
                for order in orders
            ]
    return found


def finish(folder: Path, columns: TrialColumns, table: pa.Table, cut: int) -> Path:
    """A finished trial folder, from two shards."""
    stage = Stage(folder, {"arm": "arm"})
    for number, piece in enumerate((table.slice(0, cut), table.slice(cut))):
        write_shard(folder, number, piece, {"seconds": 0.5})
    assert written_shards(folder) == [0, 1]
    assert merge_shards(folder, 2, columns) == {"seconds": 1.0}
    stage.finish(trial_facts(folder, columns, SPEED))
    remove_shards(folder)
    return folder


def decisions(folder: Path, cut: int = 7) -> tuple[Path, np.ndarray, list[tuple[str, ShownTrial]]]:
    trials = shown("decisions", (True, False))
    logps = np.log(np.random.default_rng(0).uniform(0.01, 0.5, size=(len(trials), 2)))
    return decided(folder, logps, np.ones(len(trials), dtype=bool), cut), logps, trials


def decided(folder: Path, logps: np.ndarray, top_is_letter: np.ndarray, cut: int = 7) -> Path:
    columns = TrialColumns(measure="decisions", variant="plain", attributes=5)
    table = columns.table(shown("decisions", (True, False)), Decided(logps, top_is_letter))
    return finish(folder, columns, table, cut)


REPLIES = ["[1, 2, 3, 4, 5]", "[101, 0, 0, 0, -7]", "no", "{"]


def reported(trial: ShownTrial, said: str | None) -> Report:
    names = trial.context.attribute_names
    whole = said is not None and said.startswith("[")
    reply = json.dumps(dict(zip(names, json.loads(str(said)), strict=True))) if whole else said
    return reply, parse_report(reply, names)


def reports(folder: Path) -> Path:
    trials, columns = shown("reports", (True,)), TrialColumns(measure="reports", variant="trial", attributes=5)
    replies = [reported(trial, REPLIES[i % 4]) for i, (_, trial) in enumerate(trials)]
    return finish(folder, columns, columns.table(trials, reports=replies), cut=3)


OPENING = np.linspace(0, 0.9, 10)
FREE: list[str | None] = ["[1, 2, 3, 4, 5]", "A", None]
"""The free reply to the first prompt of each context."""


def constrained_reports(folder: Path) -> Path:
    trials = shown("reports", (True,))
    columns = TrialColumns(measure="reports", variant="trial", constrained=True, attributes=5)
    replies = [reported(trial, "[1, 2, 3, 4, 5]") for _, trial in trials]
    free = [reported(t, FREE[CONTEXTS.index(t.context)]) if t.index == 0 else None for _, t in trials]
    return finish(folder, columns, columns.table(trials, None, replies, OPENING, free), cut=3)


def test_decisions_are_read_as_they_were_written(tmp_path: Path):
    folder, logps, trials = decisions(tmp_path / "decisions")
    read = read_decisions(folder, BY_NAME)
    assert read.contexts == [c.name for c in CONTEXTS] and read.log_odds.shape == (3, 4, 2)
    places = [(c, pair, order) for c in range(3) for pair in range(PAIRS[c]) for order in range(2)]
    for (_, trial), (logp_a, logp_b), place in zip(trials, logps, places, strict=True):
        assert read.log_odds[place] == logp_a - logp_b
        assert read.letter_mass[place] == np.exp(logp_a) + np.exp(logp_b)
        assert read.chose_a[place] == (logp_a > logp_b)
        difference = (trial.first - trial.second) / trial.context.spans
        assert (read.difference[place[:2]] == difference).all()
    assert np.isnan(read.log_odds[1, 2:]).all() and (read.difference[1, 2:] == 0).all(), "padding"
    assert read.shown.sum() == 20 and not read.shown[1, 2:].any() and read.reasons == [[], [], []]
    facts = read_manifest(folder, DecisionFacts).facts
    assert facts.rows == 20 and facts.share_a == round(float((logps[:, 0] > logps[:, 1]).mean()), 4)
    assert facts.undecided == {}


NO_LETTER, NOT_FINITE = (0, 3), (5, 10)
"""Rows: both orders of context 0 pair 1 and, in another pair of it, one; one order of context 1."""


def undecided(folder: Path) -> tuple[Path, np.ndarray]:
    logps = np.log(np.tile([0.6, 0.3], (20, 1)))
    top = np.ones(20, dtype=bool)
    top[[*NO_LETTER]] = False
    logps[[*NO_LETTER]] -= 3  # P(A) + P(B) = .045
    logps[[*NOT_FINITE]] = [[np.nan, np.nan], [-np.inf, -0.1]]
    return decided(folder, logps, top), logps


def test_a_decision_that_was_not_made_is_missing(tmp_path: Path):
    folder, _ = undecided(tmp_path / "decisions")
    read = read_decisions(folder, BY_NAME)
    missing = np.isnan(read.log_odds) & read.shown
    assert np.argwhere(missing).tolist() == [[0, 0, 0], [0, 1, 1], [0, 2, 1], [1, 1, 0]]
    assert read.reasons == [["no_letter", "no_letter", "not_finite"], ["not_finite"], []]
    assert (np.isnan(read.chose_a) == np.isnan(read.log_odds)).all()
    assert np.isnan(read.preference[0]).tolist() == [True, True, True, False]
    assert np.isnan(read.preference[1]).tolist() == [False, True, True, True], "the last two are padding"
    assert read.shown.sum() == 20
    assert np.isnan(read.letter_mass).sum() == 4 == (~read.shown).sum(), "only padding"
    assert read.letter_mass[0, 2, 1] == read.letter_mass[1, 1, 0] == 0
    assert read.letter_mass[0, 0, 0] == pytest.approx(0.9 * np.exp(-3))
    facts = read_manifest(folder, DecisionFacts).facts
    assert facts.undecided == {"no_letter": 2, "not_finite": 2} and facts.share_a == 1
    assert facts.mean_letter_mass == pytest.approx((16 * 0.9 + 2 * 0.9 * np.exp(-3)) / 20, abs=1e-4)
    table = pd.read_parquet(folder / TRIALS)
    assert table["letter"].isna().tolist() == table["undecided"].notna().tolist()


def test_an_arm_without_any_decision_has_no_share_of_a(tmp_path: Path):
    logps = np.full((20, 2), np.nan)
    folder = decided(tmp_path / "decisions", logps, np.zeros(20, dtype=bool))
    facts = read_manifest(folder, DecisionFacts).facts
    assert facts.share_a is None and facts.undecided == {"not_finite": 20} and facts.mean_letter_mass == 0
    assert np.isnan(read_decisions(folder, BY_NAME).chose_a).all()


def test_the_likeliest_token_decides_not_the_mass(tmp_path: Path):
    logps, top = np.log(np.tile([0.3, 0.3], (20, 1))), np.zeros(20, dtype=bool)
    logps[10:], top[10:] = np.log([0.02, 0.01]), True
    read = read_decisions(decided(tmp_path / "decisions", logps, top), BY_NAME)
    assert np.isnan(read.log_odds[0]).all() and not np.isnan(read.log_odds[2]).any()


def as_format_2(folder: Path, **origin: Any) -> Path:
    """A trial folder as the versions before wrote it."""
    table = pq.read_table(folder / TRIALS)
    new = ["top_is_letter", "undecided", "opening", "free_sampled", "free_reply", "free_reason"]
    said = json.loads(table.schema.metadata[METADATA]) | {"format": 2}
    del said["constrained"]
    table = table.drop_columns([name for name in new if name in table.column_names])
    pq.write_table(table.replace_schema_metadata({METADATA: json.dumps(said)}), folder / TRIALS)
    manifest = json.loads((folder / "manifest.json").read_text())
    facts = ("rows", "share_a", "mean_letter_mass", "readable", "unreadable", "outside", "answering")
    manifest["facts"] = {key: value for key, value in manifest["facts"].items() if key in facts}
    manifest["depends_on"] |= origin
    (folder / "manifest.json").write_text(json.dumps(manifest))
    return folder


def test_a_file_of_format_2_is_judged_by_the_mass(tmp_path: Path):
    folder, _ = undecided(tmp_path / "new")
    new = read_decisions(folder, BY_NAME)
    old = read_decisions(as_format_2(folder), BY_NAME)
    np.testing.assert_array_equal(old.log_odds, new.log_odds)
    np.testing.assert_array_equal(old.letter_mass, new.letter_mass)
    assert old.reasons == new.reasons
    logps = np.log(np.tile([0.26, 0.24], (20, 1)))
    logps[0] = np.log([0.25, 0.24])
    folder = as_format_2(decided(tmp_path / "near", logps, np.zeros(20, dtype=bool)))
    assert read_decisions(folder, BY_NAME).reasons == [["no_letter"], [], []]


def test_reports_of_format_2_say_in_the_manifest_whether_they_were_constrained(tmp_path: Path):
    for place, (origin, constrained) in enumerate(
        [({"constrain_reports": True}, True), ({"constrain_reports": False}, False), ({}, False)]
    ):
        read = read_reports(as_format_2(reports(tmp_path / str(place)), **origin))
        assert read.constrained is constrained and read.opening is None and read.free_total == 0


def test_constrained_reports_come_with_what_the_model_does_by_itself(tmp_path: Path):
    read = read_reports(constrained_reports(tmp_path / "reports-constrained"))
    assert read.constrained and read.opening is not None
    np.testing.assert_array_equal(
        read.opening, [[*OPENING[:4]], [*OPENING[4:6], np.nan, np.nan], [*OPENING[6:]]], strict=False
    )
    assert read.free_total == 3 and read.free_reasons == ["letter", "not_finite"]
    assert not np.isnan(read.values[read.total == 4]).any() and read.reasons == [[], [], []]
    facts = read_manifest(tmp_path / "reports-constrained", ReportFacts).facts
    assert (facts.constrained, facts.free_total, facts.free_readable, facts.mean_opening) == (True, 3, 1, 0.45)
    assert facts.readable == 10


def test_reports_are_read_as_they_were_written(tmp_path: Path):
    read = read_reports(reports(tmp_path / "reports"))
    assert read.values.shape == (3, 4, 5) and read.total.tolist() == [4, 2, 4]
    assert read.values[0, 0].tolist() == [1, 2, 3, 4, 5] and read.values[0, 1].tolist() == [101, 0, 0, 0, -7]
    assert np.isnan(read.values[0, 2:]).all() and np.isnan(read.values[1, 2:]).all()
    assert read.outside.tolist() == [1, 1, 1]
    assert read.reasons == [["no_json", "truncated"], [], ["no_json", "truncated"]]
    facts = json.loads((tmp_path / "reports" / "manifest.json").read_text())["facts"]
    assert (facts["readable"], facts["unreadable"], facts["outside"]) == (6, {"no_json": 2, "truncated": 2}, 3)


def rewrite(folder: Path, table: pa.Table) -> None:
    """Another trial file in place of one, with a manifest as versions before wrote it: without the file's hash."""
    pq.write_table(table, folder / TRIALS)
    manifest = json.loads((folder / "manifest.json").read_text())
    del manifest["facts"]["content"]
    (folder / "manifest.json").write_text(json.dumps(manifest))


def test_a_manifest_without_the_hash_of_its_file_is_read(tmp_path: Path):
    folder, _, _ = decisions(tmp_path / "decisions")
    before = read_decisions(folder, BY_NAME)
    rewrite(folder, pq.read_table(folder / TRIALS))
    np.testing.assert_array_equal(read_decisions(folder, BY_NAME).log_odds, before.log_odds)


@pytest.mark.parametrize("name", ["logp_a", "first_as_a", "letter", "context", "index"])
def test_a_value_that_was_edited_is_noticed(tmp_path: Path, name: str):
    folder, _, _ = decisions(tmp_path / "decisions")
    table = pq.read_table(folder / TRIALS)
    place, values = table.schema.get_field_index(name), table[name].to_pylist()
    values[:2] = values[1::-1] if values[0] != values[1] else [values[-1]] * 2
    edited = pa.array(values, type=table.schema.field(name).type)
    pq.write_table(table.set_column(place, table.schema.field(name), edited), folder / TRIALS)
    with pytest.raises(InputError, match=r"trials\.parquet: changed since the evaluation wrote it.*restore it"):
        read_decisions(folder, BY_NAME)


def test_a_file_without_a_hash_is_held_against_what_can_be_told(tmp_path: Path):
    folder, _, _ = decisions(tmp_path / "decisions")
    table = pq.read_table(folder / TRIALS)
    gaps = pa.array([None, *table["first_as_a"].to_pylist()[1:]])
    rewrite(folder, table.set_column(table.schema.get_field_index("first_as_a"), "first_as_a", gaps))
    with pytest.raises(InputError, match="column 'first_as_a' has 1 gaps"):
        read_decisions(folder, BY_NAME)
    folder, _, _ = decisions(tmp_path / "others")
    with pytest.raises(InputError, match="has 5 attributes, none among the contexts of the run"):
        read_decisions(folder, {})


def test_contexts_need_not_stand_together(tmp_path: Path):
    folder, _, _ = decisions(tmp_path / "together")
    whole = read_decisions(folder, BY_NAME)
    table = pq.read_table(folder / TRIALS)
    # By turns: pair after pair of each context in turn, as two groups that share a context might lie.
    order = np.lexsort((np.arange(20) % 2, [BY_NAME_ORDER[n] for n in table["context"].to_pylist()], table["index"]))
    rewrite(folder, table.take(order))
    mixed = read_decisions(folder, BY_NAME)
    assert mixed.contexts == whole.contexts
    np.testing.assert_array_equal(mixed.log_odds, whole.log_odds)
    np.testing.assert_array_equal(mixed.difference, whole.difference)


BY_NAME_ORDER = {context.name: place for place, context in enumerate(CONTEXTS)}


def test_a_pair_in_one_order_only_is_refused(tmp_path: Path):
    folder, _, _ = decisions(tmp_path / "decisions")
    table = pq.read_table(folder / TRIALS)
    # Twice in the same order; the number of rows is still even, and that of the manifest.
    twice = table["first_as_a"].to_pylist()
    twice[1] = True
    place = table.schema.get_field_index("first_as_a")
    rewrite(folder, table.set_column(place, "first_as_a", pa.array(twice)))
    with pytest.raises(InputError, match="pairs are not shown once in each order"):
        read_decisions(folder, BY_NAME)


@pytest.mark.parametrize(("measure", "variant"), ALL)
def test_columns_are_named_once_and_found_again(measure: Any, variant: str):
    columns = TrialColumns(measure=measure, variant=variant, attributes=4)
    names = columns.schema.names
    assert ("top_is_letter" in names) == ("undecided" in names) == columns.decides
    assert len(names) == len({*names})
    assert {*columns.of("first"), *columns.of("second")} < {*names} and len(columns.of("first")) == 4
    assert ("letter" in names) == columns.decides == (measure == "decisions" or variant == "after_choice")
    assert ("reply" in names) == ({*columns.of("value")} < {*names}) == (measure == "reports")
    assert TrialColumns.model_validate_json(columns.schema.metadata[METADATA]) == columns


def test_rows_without_their_answers_are_no_table():
    columns = TrialColumns(measure="decisions", variant="plain", attributes=5)
    with pytest.raises(KeyError, match="logp_a"):
        columns.table(shown("decisions", (True,)))


def test_the_bytes_do_not_depend_on_the_shards(tmp_path: Path):
    files = [decisions(tmp_path / str(cut), cut)[0] / TRIALS for cut in (2, 7, 19)]
    assert len({file.read_bytes() for file in files}) == 1
    assert set(pq.read_schema(files[0]).metadata) == {METADATA}, "nothing of how it came about"


def with_metadata(table: pa.Table, **changes: Any) -> pa.Table:
    said = json.loads(table.schema.metadata[METADATA]) | changes
    return table.replace_schema_metadata({METADATA: json.dumps(said)})


BROKEN: dict[str, tuple[Any, str]] = {
    "no metadata": (
        lambda t: t.replace_schema_metadata(None),
        r"not a trial file of format 2 or 3 \(format: .*given: 1\)",
    ),
    "another format": (
        lambda t: with_metadata(t, format=4),
        r"not a trial file of format 2 or 3 \(format: .*given: 4\)",
    ),
    "another variant": (lambda t: with_metadata(t, variant="rhymed"), "decisions have no variant 'rhymed'"),
    "not its metadata": (lambda t: with_metadata(t, more=1), "unknown key 'more'"),
    "a column less": (lambda t: t.drop_columns(["second_3"]), "column 'second_3' is missing, its metadata says double"),
    "a column more": (
        lambda t: t.append_column("first_6", t["first_1"]),
        "column 'first_6' is double, its metadata says none",
    ),
    "fewer attributes": (
        lambda t: with_metadata(t, attributes=4),
        "column 'first_5' is double, its metadata says none",
    ),
    "another type": (
        lambda t: t.set_column(2, "index", t["index"].cast(pa.float64())),
        "column 'index' is double, its metadata says int64",
    ),
    "rows less": (lambda t: t.slice(2), "18 rows, its manifest says 20"),
}


@pytest.mark.parametrize("name", BROKEN)
def test_a_file_that_is_not_as_it_says_is_refused_in_one_line(tmp_path: Path, name: str):
    change, says = BROKEN[name]
    folder, _, _ = decisions(tmp_path / "decisions")
    rewrite(folder, change(pq.read_table(folder / TRIALS)))
    with pytest.raises(InputError, match=says) as caught:
        read_decisions(folder, BY_NAME)
    assert str(caught.value).startswith(str(folder / TRIALS)) and "\n" not in str(caught.value)


def test_a_cut_or_missing_file_is_refused_in_one_line(tmp_path: Path):
    folder = reports(tmp_path / "reports")
    whole = (folder / TRIALS).read_bytes()
    for content in (whole[: len(whole) // 2], b""):
        (folder / TRIALS).write_bytes(content)
        with pytest.raises(InputError, match=r"trials\.parquet: changed since the evaluation wrote it"):
            read_reports(folder)
    (folder / TRIALS).write_bytes(whole)
    rewrite(folder, pq.read_table(folder / TRIALS))
    for content in (whole[: len(whole) // 2], b""):
        (folder / TRIALS).write_bytes(content)
        with pytest.raises(InputError, match=r"trials\.parquet: cannot be read") as caught:
            read_reports(folder)
        assert "\n" not in str(caught.value)
    (folder / TRIALS).unlink()
    with pytest.raises(InputError, match=r"trials\.parquet: cannot be read"):
        read_reports(folder)
    (folder / "manifest.json").unlink()
    with pytest.raises(InputError, match="no finished trials here"):
        read_reports(folder)


def test_one_measure_is_not_read_as_the_other(tmp_path: Path):
    with pytest.raises(InputError, match=r"manifest\.json: facts"):
        read_reports(decisions(tmp_path / "decisions")[0])


def test_other_tools_read_them(tmp_path: Path):
    table = pd.read_parquet(reports(tmp_path / "reports") / TRIALS)
    assert table.loc[0, [f"value_{i}" for i in range(1, 6)]].tolist() == [1, 2, 3, 4, 5]
    assert table["reason"].isna().tolist() == [i % 4 < 2 for i in range(10)]
