"""A published folder: it loads by name, says what it is and what is wrong with it, and not where it was made."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from huggingface_hub import DatasetCard, ModelCard

from analysis.run import write_analysis
from experiment.publish.adapters import base_name
from experiment.publish.folder import write_published
from store.files import write_json
from store.manifests import MANIFEST, DecisionFacts, ReportFacts, read_manifest
from store.model_file import ModelFile
from store.run import RunFolder, read_run
from store.trials import TrialColumns, decided_in, read_rows
from store.weights import load_weights
from task.errors import InputError

MINE = r"made by scripts\.publish"


def test_every_table_loads_by_its_name_with_every_row(made: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    from datasets import load_dataset

    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    published = write_published(made, tmp_path / "out")
    found = {n: load_dataset(str(tmp_path / "out"), n, split="train", cache_dir=tmp_path) for n in published.rows}
    assert {name: len(rows) for name, rows in found.items()} == published.rows
    assert {*found} == {"decisions", "reports", "weights", "contexts"} and len(found["contexts"]) == 11
    run = RunFolder(made)
    decided = found["decisions"].to_pandas()
    facts = read_manifest(run.trials_of("off_the_shelf", "decisions", "plain"), DecisionFacts).facts
    base = decided[decided["arm"] == "off_the_shelf"]
    assert base["undecided"].value_counts().to_dict() == facts.undecided and len(base) == facts.rows
    assert base["letter"].isna().sum() == sum(facts.undecided.values()) > 0
    assert {*decided["run"]} == {"small-seed0"} and {*decided["seed"]} == {0} and not decided["constrained"].any()
    told = found["reports"].to_pandas()
    free = told[(told["arm"] == "instilled") & ~told["constrained"]]
    facts = read_manifest(run.trials_of("instilled", "reports", "trial"), ReportFacts).facts
    assert free["reason"].value_counts().to_dict() == facts.unreadable and free["opening"].isna().all()
    assert told[told["constrained"]]["opening"].notna().all() and {*told["constrained"]} == {True, False}


def test_the_weights_are_those_of_the_inputs_and_of_the_analysis(made: Path, tmp_path: Path):
    write_published(made, tmp_path / "out")
    table = pq.read_table(tmp_path / "out" / "data" / "weights.parquet").to_pandas()
    targets = load_weights(RunFolder(made).target_weights)
    rows = table[table["kind"] == "target"].set_index("context")
    assert {*rows.index} == {*targets} and rows["arm"].isna().all()
    for name, weights in targets.items():
        assert [rows.loc[name, f"weight_{i}"] for i in range(1, 6)] == pytest.approx(weights)
    learned = table[(table["kind"] == "learned") & (table["arm"] == "instilled")]
    assert len(learned) == 11 and learned[["weight_1", "raw_5", "sd_3", "log_odds_2"]].notna().all(axis=None)
    assert {*table["kind"]} == {"target", "planted", "learned"}


def test_the_card_says_where_it_comes_from_and_that_nothing_is_wrong(made: Path, tmp_path: Path):
    published = write_published(made, tmp_path / "out")
    card = DatasetCard.load(tmp_path / "out" / "README.md")
    assert [config["config_name"] for config in card.data["configs"]] == [*published.rows]
    text = card.text
    assert published.wrong == [] and "Nothing: all trials and trainings of the run are finished" in text
    facts = read_manifest(RunFolder(made).trials_of("instilled", "reports", "trial"), ReportFacts).facts
    missing = facts.rows - facts.readable
    assert f"| instilled | reports | {facts.rows} | {missing} | no_json {missing} | {facts.content} |" in text
    for said in (
        "run: small-seed0, seed 0",
        "by the posterior of a logistic regression",
        "This is a simulation",
        "numpy ",
        "unreadable: repeated_key",
        "git: ",
    ):
        assert said in text, said


def test_adapters_have_their_cards_and_a_sum_is_told_as_one(trained: RunFolder):
    published = write_published(trained.path)
    assert [adapter.arm for adapter in published.adapters] == ["instilled", "dose_half"]
    folder = trained.published / "adapters"
    files = {p.relative_to(folder).as_posix() for p in folder.rglob("*") if p.is_file()}
    own = ("README.md", "adapter_config.json", "adapter_model.safetensors")
    assert files == {"README.md", *(f"{arm}/{name}" for arm in ("instilled", "dose_half") for name in own)}
    config = json.loads((folder / "instilled" / "adapter_config.json").read_text())
    assert config["base_model_name_or_path"] == "organism" and config["r"] == 2
    derived = ModelCard.load(folder / "dose_half" / "README.md")
    assert "This adapter was not trained." in derived.text and derived.data.base_model == "organism"
    assert "| instilled | 0.5 | first 2 | all |" in derived.text and "It changes 3 matrices." in derived.text
    assert "| [dose_half](dose_half/README.md) | a sum of adapters (instilled), not trained |" in (
        (folder / "README.md").read_text()
    )
    card = DatasetCard.load(trained.published / "README.md")
    assert card.data.license == "apache-2.0" and "organism, revision main" in card.text


def test_nothing_in_the_folder_names_a_place_of_this_machine(trained: RunFolder):
    write_published(trained.path)
    for path in trained.published.rglob("*"):
        if path.is_file():
            content = path.read_bytes()
            assert str(trained.path.parent).encode() not in content and b"models/organism" not in content, path


@pytest.mark.parametrize("said", ["made in {run}/adapters/x\n", "token hf_abcdefghijklmnopqrstuvwxyz\n"])
def test_a_card_that_tells_of_this_machine_is_refused_and_nothing_is_left(trained: RunFolder, said: str):
    (trained.adapter("instilled") / "README.md").write_text(said.format(run=trained.path.resolve()))
    with pytest.raises(InputError, match=r"^adapters/instilled/README\.md: "):
        write_published(trained.path)
    assert not trained.published.exists()


def test_a_card_that_is_a_link_to_another_file_is_not_published(trained: RunFolder, tmp_path: Path):
    (tmp_path / "private.txt").write_text("mine")
    card = trained.adapter("instilled") / "README.md"
    card.unlink()
    card.symlink_to(tmp_path / "private.txt")
    with pytest.raises(InputError, match=r"README\.md: a link"):
        write_published(trained.path)


@pytest.mark.parametrize(
    ("name", "public"),
    [
        ("Qwen/Qwen3-4B", "Qwen/Qwen3-4B"),
        ("/home/me/models/mine", "mine"),
        ("models/organism", "organism"),
        ("models/gone", "gone"),
        ("../../me/mine", "mine"),
    ],
)
def test_a_model_is_called_what_it_is_called_elsewhere(made: Path, name: str, public: str):
    record = read_run(made).model_copy(update={"model": ModelFile(name=name)})
    assert base_name(record) == public


def test_what_is_not_in_order_is_said_in_the_card_and_by_the_command(trained: RunFolder):
    edited = trained.trials_of("off_the_shelf", "reports", "trial") / "trials.parquet"
    table = pq.read_table(edited)
    changed = table.set_column(table.column_names.index("value_1"), "value_1", table["value_2"])
    pq.write_table(changed, edited)
    (trained.trials_of("off_the_shelf", "decisions", "plain") / MANIFEST).unlink()
    (trained.adapter("dose_half") / MANIFEST).unlink()
    published = write_published(trained.path)
    said = "\n".join(published.wrong)
    for line in (
        r"^left out: trials/off_the_shelf/reports/trials\.parquet: changed since the evaluation wrote it",
        r"^trials/off_the_shelf/decisions: not begun, so none",
        r"^adapters/dose_half: sum is not begun$",
        r"^trials of instilled \(decisions, reports\): their manifests tell the adapter by another hash",
        r"^no analysis of these trials",
    ):
        assert re.search(line, said, re.MULTILINE), line
    text = (trained.published / "README.md").read_text()
    assert all(f"- {line}\n" in text for line in published.wrong)
    assert "learned" not in {*pq.read_table(trained.published / "data" / "weights.parquet")["kind"].to_pylist()}


def test_a_gate_that_is_not_passed_is_said(run: RunFolder):
    summary = json.loads((run.analysis / "summary.json").read_text())
    summary["gate"] |= {"passed": False, "reasons": ["agreement .61"]}
    summary["comparisons"]["instilled"] |= {"testable": False, "reason": "the gate was not passed"}
    summary["stopped_early"] = {"instilled": "step 3: no letters"}
    write_json(run.analysis / "summary.json", summary)
    wrong = write_published(run.path).wrong
    assert "instillation gate of instilled/instilled not passed: agreement .61" in wrong
    assert "comparison instilled not testable: the gate was not passed" in wrong
    assert "training of instilled stopped early at step 3: no letters" in wrong


def test_it_is_written_again_over_itself_and_never_over_anything_else(run: RunFolder, tmp_path: Path):
    write_published(run.path)
    write_analysis(run.path)  # the published folder is none of the run's inputs
    write_published(run.path)
    (run.published / "mine.txt").write_text("mine")
    with pytest.raises(InputError, match=r"holds mine\.txt, which scripts\.publish did not write"):
        write_published(run.path)
    for folder in (run.path, run.analysis, run.trials):
        with pytest.raises(InputError, match=MINE):
            write_published(run.path, folder)
    assert not list(run.path.glob(".published.tmp"))


def test_names_from_a_run_never_become_paths(trained: RunFolder, tmp_path: Path):
    for place in ("arms", "groups"):
        values = json.loads(trained.record.read_text())
        values[place]["../../evil"] = next(iter(values[place].values()))
        write_json(tmp_path / "run.json", values)
        original = trained.record.read_text()
        trained.record.write_text((tmp_path / "run.json").read_text())
        with pytest.raises(InputError, match="as it names files"):
            write_published(trained.path)
        trained.record.write_text(original)
    values = json.loads(trained.record.read_text())
    values["groups"]["native"] = "../../../etc/passwd"  # the file's place is known from the group's name
    trained.record.write_text(json.dumps(values))
    assert write_published(trained.path).rows["contexts"] == 11


def test_a_folder_that_is_no_run_and_a_run_without_trials(tmp_path: Path, run: RunFolder):
    with pytest.raises(InputError, match=r"run\.json: no such file"):
        write_published(tmp_path / "nowhere")
    assert not (tmp_path / "nowhere").exists()
    for path in run.trials.rglob(MANIFEST):
        path.unlink()
    with pytest.raises(InputError, match="no finished trials that can be read"):
        write_published(run.path)
    assert not run.published.exists()


def test_rows_of_an_earlier_format_tell_which_decisions_were_made(run: RunFolder):
    folder = run.trials_of("off_the_shelf", "decisions", "plain")
    columns, table = read_rows(folder, "decisions")
    old = TrialColumns(**{**columns.model_dump(), "format": 2})
    letters = ["A" if a > b else "B" for a, b in zip(*(table[f"logp_{x}"].to_pylist() for x in "ab"), strict=True)]
    place = table.column_names.index("letter")
    earlier = table.set_column(place, "letter", pa.array(letters)).drop_columns(["top_is_letter", "undecided"])
    pq.write_table(earlier.cast(old.schema), folder / "trials.parquet")
    manifest = json.loads((folder / MANIFEST).read_text())
    manifest["facts"]["content"] = None
    write_json(folder / MANIFEST, manifest)
    published = write_published(run.path)
    assert published.wrong[0].endswith("so that an edit would not show: off_the_shelf/decisions")
    found = pq.read_table(run.published / "data" / "decisions.parquet").to_pandas()
    found = found[found["arm"] == "off_the_shelf"]
    expected = decided_in(earlier)
    assert found["undecided"].notna().tolist() == [why is not None for why in expected.undecided]
    assert found["letter"].isna().tolist() == found["undecided"].notna().tolist() and found["letter"].isna().any()
