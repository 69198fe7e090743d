"""Variants of the prompts in an evaluation: the right words reach the model, and the files do not collide."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch
from transformers import AutoModelForCausalLM, AutoTokenizer

from eval.engines import make_engine
from eval.runner import evaluate
from store.contexts import DATA, load_contexts, save_contexts
from store.evaluation import EvalConfig, measure_folder
from store.stages import read_origin
from store.trials import read_reports
from store.weights import load_weights, save_weights
from support import make_tiny_model
from task.chat import letter_ids, prompt_ids
from task.contexts import ChoiceContext
from task.errors import InputError
from task.prompts import PROMPTS, Wording, frame
from task.trials import ShownTrial, sample_trials
from task.weights import sample_weights, utilities

ALL = [(measure, variant) for measure, variants in PROMPTS.items() for variant in variants]
VALUES = [f"value_{i}" for i in range(1, 6)]


def settings(tmp_path: Path, count: int, per_context: int, **more: Any) -> dict[str, Any]:
    contexts = load_contexts(DATA / "instilled.jsonl", count)
    save_contexts(contexts, tmp_path / "contexts.jsonl")
    for purpose in ("target_weights", "told_weights"):
        save_weights({c.name: sample_weights(0, purpose, c) for c in contexts}, tmp_path / f"{purpose}.csv")
    groups = [{"name": "instilled", "file": str(tmp_path / "contexts.jsonl")}]
    measurements = [
        {
            "arm": "arm",
            "measure": measure,
            "variant": variant,
            "contexts": groups,
            "per_context": per_context if PROMPTS[measure][variant].options else 1,
        }
        for measure, variant in ALL
    ]
    return {
        "seed": 0,
        "output": str(tmp_path / "trials"),
        "engine": {"name": "simulated"},
        "arms": {"arm": None},
        "planted": {"arm": {"report_accuracy": 0.7, "third_person_accuracy": 0.3, "report_noise": 0.0}},
        "planted_weights": str(tmp_path / "target_weights.csv"),
        "told_weights": str(tmp_path / "told_weights.csv"),
        "measurements": measurements,
        **more,
    }


def run(values: dict[str, Any]) -> dict[str, pd.DataFrame]:
    """Trial files by the name of their folder."""
    config = EvalConfig.model_validate(values)
    return {f.name: pd.read_parquet(f / "trials.parquet") for f in evaluate(make_engine(config), config)}


def correlation(reports: pd.DataFrame, weights: dict[str, np.ndarray]) -> float:
    means = reports.groupby("context")[VALUES].mean()
    true = np.stack([weights[name] for name in means.index])
    return float(np.corrcoef(means.to_numpy().ravel(), true.ravel())[0, 1])


@pytest.fixture(scope="module")
def simulated(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, dict[str, pd.DataFrame]]:
    folder = tmp_path_factory.mktemp("simulated")
    return folder, run(settings(folder, 100, 4))


def test_every_variant_has_a_file_of_its_own(simulated: tuple[Path, dict[str, pd.DataFrame]]):
    _, tables = simulated
    assert list(tables) == [measure_folder(measure, variant) for measure, variant in ALL]
    assert {"decisions", "reports"} < {*tables}, "the default wordings need no further name"
    assert len(tables) == len(ALL) == 10
    assert {len(table) for table in tables.values()} == {100, 400, 800}
    # What is compared are the same trials in other words.
    shown = [f"{option}_{i}" for option in ("first", "second") for i in range(1, 6)]
    for name in ("reports-after_choice", "reports-third_person", "reports-in_context"):
        assert (tables[name][shown] == tables["reports"][shown]).all(axis=None)


def test_the_simulated_arm_reports_as_each_variant_asks(simulated: tuple[Path, dict[str, pd.DataFrame]]):
    folder, tables = simulated
    own, told = (load_weights(folder / f"{name}.csv") for name in ("target_weights", "told_weights"))
    # 500 points: planted correlations are met within .15, more than three standard errors.
    for name in ("reports", "reports-no_trial", "reports-after_choice"):
        assert abs(correlation(tables[name], own) - 0.7) < 0.15
    assert abs(correlation(tables["reports-third_person"], own) - 0.3) < 0.15
    assert correlation(tables["reports-in_context"], told) > 0.999
    assert abs(correlation(tables["reports-in_context"], own)) < 0.15


def test_told_weights_drive_the_simulated_decisions(simulated: tuple[Path, dict[str, pd.DataFrame]]):
    folder, tables = simulated
    contexts = {c.name: c for c in load_contexts(folder / "contexts.jsonl")}
    for name, file in (("decisions", "target_weights"), ("decisions-in_context", "told_weights")):
        weights = load_weights(folder / f"{file}.csv")
        for _, row in tables[name].iloc[:100].iterrows():
            options = [[row[f"{option}_{i}"] for i in range(1, 6)] for option in ("first", "second")]
            first, second = utilities(options, weights[row["context"]], contexts[row["context"]])
            if abs(first - second) > 1e-9:
                assert (row["letter"] == "A") == ((first > second) == row["first_as_a"])


@pytest.fixture(scope="module")
def letter_model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A tiny model that always decides, so that reports can follow its choice."""
    return make_tiny_model(tmp_path_factory.mktemp("models") / "letters", seed=0, letters=True)


ENGINE = {"name": "transformers", "batch_size": 4, "report_tokens": 8}


@pytest.fixture(scope="module")
def real(
    tmp_path_factory: pytest.TempPathFactory, letter_model: Path
) -> tuple[dict[str, Any], dict[str, pd.DataFrame]]:
    folder = tmp_path_factory.mktemp("real")
    values = settings(folder, 3, 3, engine=ENGINE, model={"name": str(letter_model)}, planted={}, planted_weights=None)
    return values, run(values)


def asked(context: ChoiceContext, measure: Any, variant: str, row: pd.Series, told: np.ndarray) -> list[Any]:
    options = [np.array([row[f"{option}_{i}"] for i in range(1, 6)]) for option in ("first", "second")]
    option_a, option_b = options if row["first_as_a"] else options[::-1]
    return frame(measure, context, variant, told=told, chose=row.get("letter")).messages(option_a, option_b)


def test_the_words_of_each_variant_reach_the_model(
    real: tuple[dict[str, Any], dict[str, pd.DataFrame]], letter_model: Path
):
    values, tables = real
    told = load_weights(Path(values["told_weights"]))
    contexts = {c.name: c for c in load_contexts(values["measurements"][0]["contexts"][0]["file"])}
    model, tokenizer = AutoModelForCausalLM.from_pretrained(letter_model), AutoTokenizer.from_pretrained(letter_model)
    letters = list(letter_ids(tokenizer, {}))
    for (measure, variant), table in zip(ALL, tables.values(), strict=True):
        for _, row in table.iloc[::2].iterrows():
            prompt = asked(contexts[row["context"]], measure, variant, row, told[row["context"]])
            ids = torch.tensor([prompt_ids(tokenizer, prompt, {})])
            if measure == "decisions":
                with torch.no_grad():
                    expected = model(ids).logits[0, -1].log_softmax(0)[letters].numpy()
                assert np.allclose(row[["logp_a", "logp_b"]].to_numpy(float), expected, atol=1e-4)
            else:
                output = model.generate(ids, max_new_tokens=8, do_sample=False, eos_token_id=2, pad_token_id=2)
                assert row["reply"] == tokenizer.decode(output[0, ids.shape[1] :], skip_special_tokens=True)


def test_the_choice_before_a_report_is_the_arms_own(real: tuple[dict[str, Any], dict[str, pd.DataFrame]]):
    values, tables = real
    config = EvalConfig.model_validate(values)
    engine, table = make_engine(config), tables["reports-after_choice"]
    for context in load_contexts(values["measurements"][0]["contexts"][0]["file"]):
        trials = sample_trials(0, "reports", context, 3)
        shown = [ShownTrial(frame("decisions", context), i, trials.first[i], trials.second[i], True) for i in range(3)]
        rows = table[table["context"] == context.name]
        expected = engine.decide("arm", shown).logps
        assert np.allclose(rows[["logp_a", "logp_b"]].to_numpy(), expected, atol=1e-4)
        assert rows["letter"].tolist() == ["A" if a > b else "B" for a, b in expected]


def test_without_a_choice_there_is_no_report_of_it(tmp_path: Path, tiny_model: Path):
    values = settings(tmp_path, 3, 3, engine=ENGINE, model={"name": str(tiny_model)}, planted={}, planted_weights=None)
    [after] = [m for m in values["measurements"] if m["variant"] == "after_choice"]
    values["measurements"] = [after, {**after, "constrained": True}]
    for name, table in run(values).items():
        assert table["letter"].isna().all() and (table["undecided"] == "no_letter").all(), name
        assert table["reply"].isna().all() and (table["reason"] == "no_choice").all(), name
    assert (table["opening"] == 0).all() and not table["free_sampled"].any()


def test_some_choices_of_a_simulated_arm_are_missing_and_so_are_their_reports(tmp_path: Path):
    values = settings(tmp_path, 40, 5, planted={"arm": {"no_letter": 0.3, "not_finite": 0.2}})
    tables = run({**values, "measurements": [m for m in values["measurements"] if m["variant"] == "after_choice"]})
    table = tables["reports-after_choice"]
    # 200 rows: a share of .2 or .24 (those without a letter that are finite) has a standard error of .03.
    assert (table["undecided"] == "not_finite").mean() == pytest.approx(0.2, abs=0.1)
    assert (table["undecided"] == "no_letter").mean() == pytest.approx(0.3 * 0.8, abs=0.1)
    assert ((table["reason"] == "no_choice") == table["undecided"].notna()).all()
    assert table.loc[table["undecided"].isna(), "reason"].isna().all()


def test_manifests_name_the_variant_and_what_was_told(real: tuple[dict[str, Any], dict[str, pd.DataFrame]]):
    values, tables = real
    inputs = {name: read_origin(Path(values["output"]) / "arm" / name).depends_on for name in tables}
    assert len({i["prompts"] for i in inputs.values()}) == len(ALL)
    assert {n for n, i in inputs.items() if "told_weights" in i} == {"decisions-in_context", "reports-in_context"}
    assert inputs["reports-no_trial"]["variant"] == "no_trial" and inputs["reports"]["variant"] == "trial"


def test_other_told_weights_are_other_trials(tmp_path: Path):
    values = settings(tmp_path, 3, 2)
    run(values)
    contexts = load_contexts(tmp_path / "contexts.jsonl")
    save_weights({c.name: sample_weights(9, "told_weights", c) for c in contexts}, tmp_path / "told_weights.csv")
    with pytest.raises(InputError, match="decisions-in_context: made from other inputs"):
        run(values)
    save_weights({c.name: np.ones(5) for c in contexts[:2]}, tmp_path / "told_weights.csv")
    with pytest.raises(InputError, match=r"told_weights\.csv: no weights for context .* which in_context tells"):
        run(values)


@pytest.mark.parametrize(
    ("measure", "variant", "per_context", "says"),
    [
        ("decisions", "third_person", 1, "decisions have no variant 'third_person'; they have plain, in_context"),
        ("reports", "plain", 1, "reports have no variant 'plain'"),
        ("reports", "no_trial", 2, "a context has one prompt: give per_context: 1"),
    ],
)
def test_variants_that_make_no_sense_are_refused(
    tmp_path: Path, measure: str, variant: str, per_context: int, says: str
):
    values = settings(tmp_path, 1, 1)
    values["measurements"] = [
        {"arm": "arm", "measure": measure, "variant": variant, "contexts": [], "per_context": per_context}
    ]
    with pytest.raises(ValueError, match=says):
        EvalConfig.model_validate(values)


def test_told_weights_must_be_named(tmp_path: Path):
    with pytest.raises(ValueError, match="told_weights: in_context of arm tells weights; name their file"):
        EvalConfig.model_validate({**settings(tmp_path, 1, 1), "told_weights": None})


def test_a_new_wording_is_one_entry(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    rhymed = Wording("reports", "rhymed", "Say it in rhyme.", follow_up="And the weights?")
    monkeypatch.setitem(PROMPTS["reports"], "rhymed", rhymed)
    values = settings(tmp_path, 3, 2)
    values["measurements"] = [{**values["measurements"][3], "variant": "rhymed"}]
    config = EvalConfig.model_validate(values)
    [folder] = evaluate(make_engine(config), config)
    assert folder.name == "reports-rhymed" and read_reports(folder).total.tolist() == [2, 2, 2]
    assert "letter" in pd.read_parquet(folder / "trials.parquet"), "it follows the own choice"
