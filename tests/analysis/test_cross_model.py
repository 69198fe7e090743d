"""The cross-model matrix: brute force, worlds with and without privileged access, and the command."""

from __future__ import annotations

import dataclasses
import itertools
import os
import shutil
import subprocess
import sys
from pathlib import Path

import matplotlib as mpl
import numpy as np
import pandas as pd
import pytest
from numpy.typing import NDArray
from PIL import Image

from analysis import cross_model as module
from analysis.cross_model import Model, align, taught_alike
from analysis.pages.cross_model_figure import draw_heatmap
from analysis.pages.drawing import house_style, save_picture
from analysis.stats.advantage import SEED, CrossModel, advantage, cross_model
from analysis.stats.agreement import paired_difference, percentile_interval, resampled_counts
from analysis.study.results import RunResults
from store.console import run_command
from store.files import read_json
from support import ROOT
from task.contexts import Attribute, ChoiceContext
from task.errors import InputError

Array = NDArray[np.float64]


def contexts(count: int, names: str = "abcde") -> list[ChoiceContext]:
    attributes = tuple(Attribute(name, "points", 0, 1) for name in names)
    return [ChoiceContext(f"c{i}", "a person", "Which?", attributes) for i in range(count)]


def model(name: str, reports: Array, weights: Array) -> Model:
    targets = {f"c{i}": row for i, row in enumerate(weights)}
    return Model(name, contexts(len(weights)), reports, weights, targets, {})


def crossed(models: list[Model]) -> CrossModel:
    return cross_model([m.reports for m in models], [m.weights for m in models])


def world(seed: int, shared_taste: float, insight: float, models: int = 3, count: int = 40) -> list[Model]:
    """Models whose weights have a part in common, and who report a part of what is theirs alone.

    Every model reports the common taste, which all of them know; `insight` is how much it reports of its own.
    """
    rng = np.random.default_rng(seed)
    common = rng.normal(size=(count, 5))
    made = []
    for i in range(models):
        own, noise = rng.normal(size=(2, count, 5))
        weights = np.sqrt(shared_taste) * common + np.sqrt(1 - shared_taste) * own
        reports = common + insight * own + 0.5 * noise
        made.append(model(f"m{i}", 50 * reports, 100 * weights))
    return made


def test_the_matrices_are_correlations_of_complete_contexts() -> None:
    models = world(0, shared_taste=0.5, insight=0.5)
    models[1].reports[3] = np.nan
    found = crossed(models)
    kept = [c for c in range(40) if c != 3]
    for i, of in enumerate(models):
        for j, held_against in enumerate(models):
            rows = kept if i == 1 else range(40)
            expected = np.corrcoef(of.reports[rows].ravel(), held_against.weights[rows].ravel())[0, 1]
            assert found.matrix[i, j] == pytest.approx(expected)
            expected = np.corrcoef(of.weights.ravel(), held_against.weights.ravel())[0, 1]
            assert found.weights_matrix[i, j] == pytest.approx(expected)
    assert found.n_contexts.tolist() == [[40] * 3, [39] * 3, [40] * 3]
    # Every test on the contexts that all of its correlations have.
    assert [a.n_contexts for a in found.over_reports] == [39, 39, 39]
    assert [a.n_contexts for a in found.over_weights] == [40, 39, 40]
    over = found.over_reports[0]
    assert over.own == pytest.approx(
        np.corrcoef(models[0].reports[kept].ravel(), models[0].weights[kept].ravel())[0, 1]
    )
    assert over.difference == pytest.approx(over.own - over.others)
    others = [np.corrcoef(m.reports[kept].ravel(), models[0].weights[kept].ravel())[0, 1] for m in models[1:]]
    assert over.others == pytest.approx(np.mean(others))


def test_the_interval_is_the_bootstrap_of_the_definition() -> None:
    rng = np.random.default_rng(1)
    own, weights, first, second = rng.normal(size=(4, 6, 5))
    own += weights
    found = advantage(own, [first, second], weights, resamples=50)
    differences = []
    for counts in resampled_counts(6, SEED, 50).astype(int):
        rows = np.repeat(np.arange(6), counts)
        r = [np.corrcoef(x[rows].ravel(), weights[rows].ravel())[0, 1] for x in (own, first, second)]
        differences.append(r[0] - (r[1] + r[2]) / 2)
    expected = percentile_interval(np.array(differences), 6)
    assert (found.boot_low, found.boot_high) == pytest.approx(expected, abs=1e-9)
    pair = paired_difference(first, own, weights, seed=SEED)
    one = advantage(own, [first], weights)
    assert (one.difference, one.boot_low, one.boot_high) == pytest.approx(
        (pair.difference, pair.boot_low, pair.boot_high)
    )


@pytest.mark.parametrize("seed", range(3))
def test_privileged_access_is_seen(seed: int) -> None:
    found = crossed(world(seed, shared_taste=0.5, insight=1.0))
    assert all(a.boot_low > 0 for a in (*found.over_reports, *found.over_weights))


def test_common_knowledge_is_no_privileged_access() -> None:
    # What all models like, every model reports: reports agree with the weights, but those of one model with all alike.
    found = [a for seed in range(20) for a in crossed(world(seed, shared_taste=0.5, insight=0.0)).over_reports]
    assert np.mean([a.own for a in found]) > 0.5
    assert abs(np.mean([a.difference for a in found])) < 0.02
    assert np.mean([a.boot_low <= 0 <= a.boot_high for a in found]) >= 0.9


def test_models_that_share_weights_and_reports_differ_in_nothing() -> None:
    rng = np.random.default_rng(0)
    weights = rng.normal(size=(30, 5))
    reports = weights + rng.normal(size=(30, 5))
    found = crossed([model(name, reports, weights) for name in "ab"])
    assert [(a.difference, a.boot_low, a.boot_high) for a in found.over_reports] == [(0, 0, 0)] * 2
    # Another's weights are then one's own: nothing to be told beyond them.
    assert all(a.boot_high < 0 and a.others == pytest.approx(1) for a in found.over_weights)


def test_contexts_are_matched_by_name() -> None:
    one, two, _ = world(0, shared_taste=0.5, insight=0.5)
    order = np.random.default_rng(0).permutation(40)
    mixed = dataclasses.replace(
        two, contexts=[two.contexts[i] for i in order], reports=two.reports[order], weights=two.weights[order]
    )
    np.testing.assert_array_equal(crossed(align([one, mixed])).matrix, crossed([one, two]).matrix)


def test_runs_that_cannot_be_crossed_are_refused() -> None:
    one, two, three = world(0, shared_taste=0.5, insight=0.5)
    with pytest.raises(InputError, match="two or more runs with names of their own"):
        align([one])
    with pytest.raises(InputError, match="got m0, m1, m0; give two or more"):
        align([one, two, one])
    fewer = dataclasses.replace(three, contexts=three.contexts[:-1])
    with pytest.raises(InputError, match="m2 and m0 do not share the context 'c39'"):
        align([one, two, fewer])
    with pytest.raises(InputError, match="m1 and m0 differ in the context 'c0'"):
        align([one, dataclasses.replace(two, contexts=contexts(40, "abcdf")), three])


def test_models_that_were_taught_the_same_are_named() -> None:
    one, two, three = world(0, shared_taste=0.5, insight=0.5)
    alike = dataclasses.replace(three, targets=one.targets)
    assert taught_alike([one, two, alike]) == [("m0", "m2")]
    untaught = [dataclasses.replace(m, targets={"elsewhere": np.ones(5)}) for m in (one, two)]
    assert taught_alike(untaught) == []


@pytest.fixture(scope="module")
def second_run(simulated_run: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The same experiment with another seed, and so other weights."""
    folder = tmp_path_factory.mktemp("second")
    experiment = (simulated_run.parent / "small.yaml").read_text()
    (folder / "small.yaml").write_text(experiment.replace("seeds: [0]", "seeds: [1]"))
    command = [sys.executable, "scripts/run_experiment.py", str(folder / "small.yaml"), "--runs", str(folder)]
    environment = {**os.environ, "WANDB_MODE": "disabled"}
    subprocess.run(command, cwd=ROOT, capture_output=True, check=True, env=environment)
    return folder / "small-seed1"


def run(monkeypatch: pytest.MonkeyPatch, comparison: str, out: Path, *runs: Path) -> None:
    monkeypatch.setattr(
        sys, "argv", ["cross_model", "--runs", *map(str, runs), "--comparison", comparison, "--out", str(out)]
    )
    run_command(module.main)


def test_the_command(
    simulated_run: Path,
    second_run: Path,
    passed: RunResults,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
):
    out = tmp_path / "out"
    run(monkeypatch, "introspection_trained", out, simulated_run, second_run)
    printed = capsys.readouterr().out
    found = read_json(out / "summary.json")
    own = next(c for c in passed.comparisons if c.name == "introspection_trained").agreement.r
    assert found["models"] == ["small-seed0", "small-seed1"] and found["taught_the_same_weights"] == []
    assert found["matrix"][0][0] == pytest.approx(own)
    table = pd.read_csv(out / "matrix.csv", index_col="of")
    np.testing.assert_allclose(table.to_numpy(), found["matrix"])
    assert table.index.tolist() == table.columns.tolist() == found["models"]
    for test in ("over_others_reports", "over_others_weights"):
        assert all(a["boot_low"] > 0 and a["n_contexts"] == 12 for a in found[test].values())
    assert f"small-seed0: own reports r = {own:+.2f}" in printed and "note" not in printed
    assert len(read_json(out / "manifest.json")["depends_on"]["runs"]) == 2
    assert Image.open(out / "heatmap.png").size[0] > 500


def test_the_command_says_what_is_wrong(
    simulated_run: Path,
    second_run: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
):
    with pytest.raises(SystemExit):
        run(monkeypatch, "nothing", tmp_path / "out", simulated_run, second_run)
    assert "no comparison 'nothing'; it has: off_the_shelf, instilled" in capsys.readouterr().err
    copy = Path(shutil.copytree(simulated_run, tmp_path / "copy"))
    record = (copy / "run.json").read_text()
    (copy / "run.json").write_text(record.replace('"name": "small-seed0"', '"name": "copy"'))
    run(monkeypatch, "instilled", tmp_path / "out", simulated_run, copy)
    assert "note: small-seed0 and copy were taught the same weights" in capsys.readouterr().out
    file = copy / "inputs" / "instilled.jsonl"
    first, rest = file.read_text().split("\n", 1)
    file.write_text(first.replace('"units": "', '"units": "thousand ', 1) + "\n" + rest)
    with pytest.raises(SystemExit):
        run(monkeypatch, "instilled", tmp_path / "out", simulated_run, copy)
    assert "copy and small-seed0 differ in the context" in capsys.readouterr().err


def test_a_run_that_did_not_learn_is_refused(failed: RunResults, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(module, "analyse", lambda run: failed)
    with pytest.raises(InputError, match="is not testable, the gate was not passed"):
        module.read_model(Path("runs/collapsed"), "instilled")


@pytest.mark.parametrize(("count", "words"), [(2, "of_a_model_instruct-seed$x"), (3, "seed"), (6, "of_a_model")])
def test_the_picture_prints_every_value_and_loses_no_text(count: int, words: str, tmp_path: Path):
    rng = np.random.default_rng(0)
    names = [f"replication_{words}{i}" for i in range(count)]
    matrix = rng.uniform(-1, 1, size=(count, count))
    matrix[0, 1] = np.nan
    contexts = np.full((count, count), 20)
    contexts[0, 1] = 0
    with house_style():
        canvas = draw_heatmap(names, matrix, np.eye(count), contexts)
        canvas.draw_without_rendering()
        printed = [text.get_text() for text in canvas.axes[0].texts]
        width, height = canvas.get_size_inches() * canvas.dpi
        for text in canvas.findobj(mpl.text.Text):
            if text.get_text().strip():
                box = text.get_window_extent()
                assert box.x0 >= 0 and box.y0 >= 0 and box.x1 <= width and box.y1 <= height, text.get_text()
        columns = [label.get_window_extent() for label in canvas.axes[0].get_xticklabels()]
    assert all(left.x1 < right.x0 for left, right in itertools.pairwise(columns))
    assert "0 to 20 contexts" in printed
    for value in matrix.ravel():
        assert ("\N{EN DASH}" if np.isnan(value) else f"{value:.2f}".replace("-", "\N{MINUS SIGN}")) in printed
    paths = [tmp_path / f"{name}.png" for name in "ab"]
    for path in paths:
        with house_style():
            save_picture(draw_heatmap(names, matrix, np.eye(count), contexts), path)
    assert paths[0].read_bytes() == paths[1].read_bytes()
    assert paths[0].with_suffix(".pdf").read_bytes() == paths[1].with_suffix(".pdf").read_bytes()
