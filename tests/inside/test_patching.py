"""Patching: the same as derived arms, and known answers for adapters whose tasks share matrices or do not."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import save_file

from inside.adapted import Adapted
from inside.answers import Answer
from inside.attribution import attribute
from inside.divergence import Batch
from inside.loading import BaseModel
from inside.patching import divergences, kept_counts, ranked, rankings
from inside_arms import DECIDING, REPORTING, changed, cosine, loaded, make_adapter
from store.checkpoints import ADAPTER
from store.derived import DeriveConfig
from store.inside import TASKS, Task
from store.inside_tables import Rows, Scores
from task.errors import InputError
from train.derived import derive

ANSWERS: dict[Task, list[Answer]] = {"deciding": DECIDING, "reporting": REPORTING}


def part(base: BaseModel, whole: Path, folder: Path, matrices: list[str]) -> Path:
    """The derived arm with some matrices of an adapter."""
    derive(
        DeriveConfig(
            model=base.settings.name,
            terms=[{"adapter": str(whole), "parts": [{"matrices": matrices}]}],
            output=str(folder),
        )
    )
    return folder


def test_leaving_matrices_out_is_the_derived_arm_without_them(base: BaseModel, with_embeddings: Path, tmp_path: Path):
    names = ["layers.1.self_attn.q_proj", "layers.2.mlp.down_proj", "embed_tokens"]
    folder, batch = part(base, with_embeddings, tmp_path / "part", names), Batch.of(REPORTING, base.device)
    with torch.no_grad():
        with loaded(base, folder):
            expected = batch.log_probabilities(base)
        with loaded(base, with_embeddings) as model:
            kept = {i for i, m in enumerate(model.matrices) if any(f"layers.{m.layer}.{m.name}" == n for n in names)}
            kept |= {i for i, m in enumerate(model.matrices) if m.name == "embed_tokens"}
            assert len(kept) == 3
            whole = batch.log_probabilities(base)
            with model.only(kept):
                found = batch.log_probabilities(base)
            assert torch.equal(batch.log_probabilities(base), whole), "afterwards all are back"
            [kl] = divergences(model, REPORTING, [frozenset(kept)], batch_size=2)
    torch.testing.assert_close(found, expected, atol=1e-4, rtol=1e-4)
    assert not torch.allclose(found, whole, atol=0.1)
    assert kl == pytest.approx(float(batch.divergence(whole, expected)) / len(REPORTING), rel=1e-3)


def test_all_matrices_leave_nothing_and_none_leave_the_backbone(base: BaseModel, adapter: Path):
    with loaded(base, adapter) as model:
        every = frozenset(range(len(model.matrices)))
        nothing, everything, again = divergences(model, DECIDING, [frozenset(), every, frozenset()], batch_size=3)
        assert everything == 0
        assert nothing == again == pytest.approx(-attribute(model, DECIDING, 1, batch_size=3).change, rel=1e-5)


def test_what_is_kept_doubles_up_to_all():
    assert [kept_counts(n) for n in (1, 2, 3, 4, 5, 28)] == [
        [1],
        [1, 2],
        [1, 2, 3],
        [1, 2, 4],
        [1, 2, 4, 5],
        [1, 2, 4, 8, 16, 28],
    ]


def test_matrices_are_ranked_by_the_sizes_of_mean_scores(base: BaseModel, adapter: Path):
    """Scores that cancel over contexts count for nothing, those that cancel over rows for their sizes."""
    with loaded(base, adapter) as model:
        rows, values = model.rows, np.zeros((2, len(model.rows)))
        first = {place: int(np.flatnonzero(mine(rows, model, place))[0]) for place in range(len(model.matrices))}
        values[:, first[3]] = 2.0, 2.0
        values[:, first[5]] = 9.0, -9.0
        values[:, first[7] : first[7] + 2] = [-1.5, 1.5]
        order = ranked(model.matrices, Scores(("one", "two"), rows, values), "here")
        assert order == [7, 3, *(place for place in range(12) if place not in (3, 7))]
        with pytest.raises(InputError, match="here: scores of other matrices"):
            ranked(model.matrices[1:], Scores(("one", "two"), rows, values), "here")


def mine(rows: Rows, model: Adapted, place: int) -> np.ndarray:
    return (rows.layer == model.matrices[place].layer) & (rows.matrix == model.matrices[place].name)


def test_random_orders_are_orders_and_differ(base: BaseModel, adapter: Path):
    with loaded(base, adapter) as model:
        one, two, again = (rankings(model.matrices, {}, 2, seed, "here") for seed in (0, 1, 0))
    assert [(by, draw) for by, draw, _ in one] == [("random", 1), ("random", 2)]
    orders = [order for _, _, order in (*one, *two)]
    assert all(sorted(order) == list(range(12)) for order in orders)
    assert len({tuple(order) for order in orders}) == 4 and one == again


def taught(base: BaseModel, adapter: Path, folder: Path, tasks: Sequence[Task], steps: int = 80) -> Path:
    """An adapter that was trained on some tasks, and to leave the others as they are.

    A task is to give the token that is the second likeliest of the base model half of the probability, a small change.
    """
    with loaded(base, adapter) as model:
        batch = Batch.of([answer for task in TASKS for answer in ANSWERS[task]], base.device)
        model.scale(0.0)
        wanted = batch.log_probabilities(base).detach()
        model.scale(1.0)
        first = batch.places[0] < len(DECIDING)
        weight = torch.full(first.shape, 10.0)
        for places in (first if task == "deciding" else ~first for task in tasks):
            second = wanted[places].exp().mean(dim=0).argsort()[-2]
            half = torch.full_like(wanted[places], -torch.inf)
            half[:, second] = 0.0
            wanted[places] = torch.logaddexp(wanted[places], half) - np.log(2)
            weight[places] = 1.0
        optimiser = torch.optim.AdamW(model.parameters, lr=0.01, weight_decay=1.0)
        for _ in range(steps):
            optimiser.zero_grad()
            off = (wanted.exp() * (wanted - batch.log_probabilities(base))).sum(dim=-1)
            (off * batch.share * weight).sum().backward()
            optimiser.step()
        state = {name: p.detach().clone() for name, p in base.model.named_parameters() if ".above" in name}
    folder.mkdir()
    (folder / "adapter_config.json").write_bytes((adapter / "adapter_config.json").read_bytes())
    saved = {f"base_model.model.{name.replace('.above', '')}": value for name, value in state.items()}
    save_file(saved, folder / ADAPTER, metadata={"format": "pt"})
    return folder


def scored(model: Adapted) -> dict[Task, Scores]:
    return {
        task: Scores(("one",), model.rows, attribute(model, answers, 7, batch_size=8).values[None])
        for task, answers in ANSWERS.items()
    }


def recovered(model: Adapted, on: Task, by: Task, k: int, scores: dict[Task, Scores]) -> float:
    """1 - KL(whole || top k) / KL(whole || backbone)."""
    kept = frozenset(ranked(model.matrices, scores[by], "here")[:k])
    nothing, some = divergences(model, ANSWERS[on], [frozenset(), kept], batch_size=8)
    return 1 - some / nothing


def test_adapters_trained_apart_in_other_layers_share_nothing(base: BaseModel, tmp_path: Path):
    """Decisions in the first two layers, reports in the last two: summed, neither task uses the other's matrices."""
    parts = []
    for task, layers in (("deciding", [0, 1]), ("reporting", [2, 3])):
        random = make_adapter(tmp_path / f"{task}-random", seed=4, std=0.05, r=2, layers_to_transform=layers)
        start = changed(random, tmp_path / f"{task}-start", 1.0, 0.0)
        parts.append(taught(base, start, tmp_path / task, [task]))
    folder = tmp_path / "sum"
    derive(
        DeriveConfig(
            model=base.settings.name,
            terms=[{"adapter": str(one), "parts": [{"weight": 1}]} for one in parts],
            output=str(folder),
        )
    )
    with loaded(base, folder) as model:
        scores = scored(model)
        found = cosine(scores["deciding"].values[0], scores["reporting"].values[0])
        assert abs(found) < 0.15
        halves = {task: frozenset(range(12)[place : place + 6]) for task, place in zip(TASKS, (0, 6), strict=True)}
        for own, other in (TASKS, TASKS[::-1]):
            assert recovered(model, own, own, 1, scores) > 0.4
            assert recovered(model, own, other, 1, scores) < 0.15
            none, mine, others = divergences(model, ANSWERS[own], [frozenset(), halves[own], halves[other]], 8)
            assert 1 - mine / none > 0.95 and 1 - others / none < 0.05


def test_a_bottleneck_serves_both_tasks(base: BaseModel, tmp_path: Path):
    """One layer for both: similar scores, and the matrix that matters most to one task recovers most of the other."""
    random = make_adapter(tmp_path / "random", seed=4, std=0.05, r=1, layers_to_transform=[3])
    both = taught(base, changed(random, tmp_path / "start", 1.0, 0.0), tmp_path / "both", TASKS, steps=60)
    with loaded(base, both) as model:
        scores = scored(model)
        found = cosine(scores["deciding"].values[0], scores["reporting"].values[0])
        assert found > 0.8
        for own, other in (TASKS, TASKS[::-1]):
            assert recovered(model, own, other, 1, scores) > 0.7
