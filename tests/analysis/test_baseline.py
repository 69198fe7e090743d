"""The input-only baseline: exact against refits, no leak, a planted lexicon found, chance called chance."""

from __future__ import annotations

import json
import math
import sys
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from numpy.typing import NDArray
from released_layout import write_release

from analysis import baseline as module
from analysis.stats.agreement import pearson, permutation_null
from analysis.stats.guessing import PENALTIES, baseline, leave_contexts_out, text_features, tokens
from analysis.study.comparisons import points_table
from store.console import run_command
from store.contexts import DATA, load_contexts
from store.files import read_json
from task.contexts import Attribute, ChoiceContext
from task.seeding import stream

Array = NDArray[np.float64]


def made_up(names: list[list[str]]) -> list[ChoiceContext]:
    return [
        ChoiceContext(f"c{i}", "a person", "Which?", tuple(Attribute(name, "points", 0, 1) for name in row))
        for i, row in enumerate(names)
    ]


def lexicon(contexts: int) -> tuple[list[ChoiceContext], Array]:
    """Attributes of an adjective and a noun; the adjective settles the weight."""
    rng = np.random.default_rng(0)
    worth = {"pleasant": 90.0, "risky": -100.0, "usual": 0.0, "costly": -50.0, "bright": 40.0}
    nouns = ["wheel", "roof", "garden", "lamp", "soup", "boat", "letter", "hinge"]
    words = [list(zip(rng.permutation(list(worth)), rng.choice(nouns, 5), strict=True)) for _ in range(contexts)]
    weights = np.array([[worth[str(adjective)] for adjective, _ in row] for row in words])
    return made_up([[f"{adjective}_{noun}" for adjective, noun in row] for row in words]), weights


def random_features(contexts: int, attributes: int, seed: int = 0) -> Array:
    return np.random.default_rng(seed).normal(size=(contexts * attributes, 7))


def refitted(features: Array, weights: Array, left_out: list[int], penalty: float) -> Array:
    """Ridge with a free intercept on the other contexts, by the normal equations; predictions of all contexts."""
    contexts, attributes = weights.shape
    rows = np.isin(np.repeat(np.arange(contexts), attributes), left_out, invert=True)
    x, y = features[rows], weights.ravel()[rows]
    dx = x - x.mean(axis=0)
    slopes = np.linalg.solve(dx.T @ dx + penalty * np.eye(x.shape[1]), dx.T @ (y - y.mean()))
    return np.asarray(((features - x.mean(axis=0)) @ slopes + y.mean()).reshape(weights.shape))


def test_predictions_equal_those_of_refits_with_the_nested_choice_of_the_penalty() -> None:
    contexts, attributes = 6, 3
    features = random_features(contexts, attributes)
    sets = np.random.default_rng(1).normal(5, 30, size=(contexts, attributes, 4))
    # One set that follows the features, so that small penalties are chosen, too.
    sets[..., 0] = (features @ np.arange(7.0)).reshape(contexts, attributes)
    centred = features - features.mean(axis=0)
    penalties = PENALTIES * np.square(centred).sum(axis=1).mean()
    found = leave_contexts_out(features, sets)
    chosen = set()
    for i in range(sets.shape[2]):
        weights = sets[..., i]
        for c in range(contexts):
            others = [d for d in range(contexts) if d != c]
            losses = [
                sum(np.square(refitted(features, weights, [c, d], p)[d] - weights[d]).sum() for d in others)
                for p in penalties
            ]
            chosen.add(int(np.argmin(losses)))
            expected = refitted(features, weights, [c], penalties[np.argmin(losses)])[c] - weights[others].mean()
            np.testing.assert_allclose(found[c, :, i], expected, rtol=1e-6, atol=1e-9)
    assert len(chosen) > 1


def test_a_context_is_predicted_without_its_own_weights() -> None:
    features = random_features(12, 5)
    weights = np.random.default_rng(2).uniform(-100, 100, size=(12, 5, 1))
    changed = weights.copy()
    changed[4] = [[1e4], [-50], [3], [0], [77]]
    before, after = leave_contexts_out(features, weights), leave_contexts_out(features, changed)
    np.testing.assert_allclose(after[4], before[4], rtol=1e-6, atol=1e-6)
    assert (np.abs(after - before)[[c for c in range(12) if c != 4]].max(axis=(1, 2)) > 1e-3).all()


def test_tokens_are_words_runs_and_units() -> None:
    found = tokens(Attribute("Fuel_cost", "euros per km", 0, 1))
    assert {"word:fuel", "word:cost", "units:euros per km", "run:cos", "run:el co", "run: fu"} <= found
    assert tokens(Attribute("fuel cost", "", 0, 1)) - found == {"units:none"}


def test_features_are_tf_idf_of_what_contexts_share() -> None:
    contexts = made_up([["ab", "zz"], ["ab", "ab qq"], ["yy", "xx"]])
    features = text_features(contexts)
    # Shared: the units, `ab` as a word, and the runs " ab" "ab " " ab ", the first and last of them in "ab qq" too.
    assert features.shape == (6, 5)
    np.testing.assert_allclose(np.linalg.norm(features, axis=1), 1)
    rare, common = 1 + math.log(4 / 3), 1.0
    row = np.array([common, *[rare] * 4])
    np.testing.assert_allclose(np.sort(features[0]), np.sort(row / np.linalg.norm(row)))
    np.testing.assert_allclose(features[0], features[2])
    assert (features[1] > 0).sum() == 1


def test_a_planted_lexicon_is_found() -> None:
    contexts, weights = lexicon(20)
    found, predicted = baseline("own", "made up", contexts, weights, seed=0)
    assert found.r > 0.9 and found.p_permutation == pytest.approx(1 / 501) and found.null_high < 0.5
    assert (found.n_contexts, found.n_points) == (20, 100)
    points = points_table(contexts, predicted=predicted, weight=weights)
    assert len(points) == 100
    assert points["attribute"].tolist() == [name for c in contexts for name in c.attribute_names]
    assert pearson(*(points[[column]].to_numpy() for column in ("predicted", "weight"))) == pytest.approx(found.r)
    weights[3, 1] = np.nan
    fewer, predicted = baseline("own", "made up", contexts, weights, seed=0)
    assert fewer.n_contexts == 19
    assert np.isnan(predicted[3]).all() and not np.isnan(np.delete(predicted, 3, axis=0)).any()


def test_random_weights_are_at_chance_and_the_refitted_null_says_so() -> None:
    contexts = load_contexts(DATA / "instilled.jsonl", 20)
    features = text_features(contexts)
    sets = stream(0, "random_weights").uniform(-100, 100, size=(20, 5, 2000))
    predicted = leave_contexts_out(features, sets)
    r = np.array([pearson(predicted[..., i], sets[..., i]) for i in range(2000)])
    # Chance is not 0, but near; the null of `baseline`, of weights permuted across contexts, lies where these r lie.
    assert -0.2 < r.mean() < 0.05
    found = [baseline("random", "x", contexts, sets[..., i], seed=i)[0] for i in range(3)]
    assert np.mean([f.null_mean for f in found]) == pytest.approx(r.mean(), abs=0.05)
    low, high = np.quantile(r, [0.025, 0.975])
    assert np.mean([f.null_low for f in found]) == pytest.approx(low, abs=0.08)
    assert np.mean([f.null_high for f in found]) == pytest.approx(high, abs=0.08)
    # Why it is not the permutation of predictions that is used.
    naive = [permutation_null(predicted[..., i], sets[..., i], seed=i, permutations=199) for i in range(200)]
    assert np.mean(np.array(naive) < 0.05) > 0.2


@pytest.mark.parametrize(
    ("contexts", "tokens_shared"), [(9, True), (20, False)], ids=["few contexts", "nothing in common"]
)
def test_too_little_to_learn_from_gives_no_figure(contexts: int, tokens_shared: bool) -> None:
    of = [[f"{chr(97 + i)}{chr(97 + i)}{k}" for k in range(5)] for i in range(contexts)]
    made = made_up(of) if tokens_shared else [unlike(context) for context in made_up(of)]
    weights = np.random.default_rng(0).normal(size=(contexts, 5))
    found, predicted = baseline("own", "x", made, weights, seed=0)
    assert math.isnan(found.r) and found.as_dict()["r"] is None and np.isnan(predicted).all()
    assert (found.n_features > 0) == tokens_shared


def unlike(context: ChoiceContext) -> ChoiceContext:
    """The context with a name and units that no other shares."""
    attributes = tuple(Attribute(a.name * 2, f"units of {context.name}", 0, 1) for a in context.attributes)
    return ChoiceContext(context.name, context.agent, context.question, attributes)


def command(monkeypatch: pytest.MonkeyPatch, *arguments: str) -> None:
    monkeypatch.setattr(sys, "argv", ["baseline", *arguments])
    run_command(module.main)


def test_the_command_on_a_run(simulated_run: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]):
    command(monkeypatch, "--run", str(simulated_run))
    printed = capsys.readouterr().out
    found = read_json(simulated_run / "baseline" / "summary.json")["baselines"]
    assert list(found) == ["target/instilled", "instilled/instilled", "instilled/native"]
    assert [f["n_contexts"] for f in found.values()] == [12, 12, 6]
    # Weights drawn at random, and a group that is too small.
    assert all(found[key]["p_permutation"] > 0.01 for key in ("target/instilled", "instilled/instilled"))
    assert found["instilled/native"]["r"] is None
    assert "instilled weights of native contexts: not fitted, 6 contexts (needed: 10)" in printed
    table = pd.read_csv(simulated_run / "baseline" / "baseline.csv")
    assert table["r"].tolist()[:2] == pytest.approx([f["r"] for f in found.values()][:2])
    assert len(pd.read_csv(simulated_run / "baseline" / "predictions.csv")) == 2 * 12 * 5
    command(monkeypatch, "--run", str(simulated_run))
    assert json.loads((simulated_run / "baseline" / "summary.json").read_text())["baselines"] == found


def test_the_command_on_released_files(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    write_release(tmp_path)
    command(monkeypatch, "--data", str(tmp_path), "--model", "toy", "--out", str(tmp_path / "out"))
    summary = read_json(tmp_path / "out" / "summary.json")
    assert list(summary["baselines"]) == ["target/instilled", "instilled/instilled", "native/native"]
    assert summary["files"]["instilled_weights.csv"]
    with pytest.raises(SystemExit):
        command(monkeypatch, "--data", str(tmp_path))
