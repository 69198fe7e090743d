"""Attribution: complete, equal to finite differences, and blind to what must not matter."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file

from inside.adapted import Adapted
from inside.attribution import attribute, quadrature
from inside.divergence import Batch, batches
from inside.loading import BaseModel
from inside.random_adapters import product_norm, random_factors
from inside_arms import DECIDING, ORGANISM, REPORTING, changed, cosine, loaded, made_up, make_adapter
from store.checkpoints import ADAPTER
from store.evaluation import ModelSettings


def error(model: Adapted, answers: list, steps: int) -> float:
    """Sum of scores against L(1) - L(0), as a share of it."""
    found = attribute(model, answers, steps, batch_size=8)
    assert found.change < -0.05, "the adapter changes the answers"
    return float(found.values.sum() / found.change - 1)


@pytest.mark.parametrize("answers", [DECIDING, REPORTING], ids=["deciding", "reporting"])
@pytest.mark.parametrize("kind", ["adapter", "with_embeddings"])
def test_scores_add_up_to_the_change(base: BaseModel, kind: str, answers: list, request: pytest.FixtureRequest):
    with loaded(base, request.getfixturevalue(kind)) as model:
        assert abs(error(model, answers, 32)) < 0.02
        assert abs(error(model, answers, 7)) < 0.04


def test_of_a_small_change_three_steps_miss_nothing(base: BaseModel, adapter: Path, tmp_path: Path):
    with loaded(base, changed(adapter, tmp_path / "small", 0.3, 0.3)) as model:
        found = attribute(model, DECIDING, 3, batch_size=8)
        assert found.values.sum() / found.change - 1 == pytest.approx(0, abs=0.005)


def test_the_quadrature_is_that_of_the_dose():
    """What is even and of degree four at most in s, as L is of a small change, is integrated exactly."""
    for steps in (2, 7):
        slope = sum(share * (-4 * s * (1 - s**2)) for s, share in quadrature(steps))
        assert slope == pytest.approx(-1)


@pytest.mark.parametrize("kind", ["adapter", "with_embeddings"])
def test_a_score_is_what_finite_differences_say(base: BaseModel, kind: str, request: pytest.FixtureRequest):
    steps, nudge = 2, 0.05
    with loaded(base, request.getfixturevalue(kind)) as model:
        scores = attribute(model, REPORTING, steps, batch_size=8).values
        batch = Batch.of(REPORTING, base.device)
        with torch.no_grad():
            whole = batch.log_probabilities(base)
            for place in np.argsort(-np.abs(scores))[[0, 1, 5, 20]]:
                expected = 0.0
                for strength, share in quadrature(steps):
                    model.scale(strength)
                    parameter, row, own = row_of(model, int(place))
                    before, ends = parameter[row].clone(), []
                    for sign in (1, -1):
                        parameter[row] = before + sign * nudge * own
                        ends.append(float(batch.divergence(whole, batch.log_probabilities(base))))
                    parameter[row] = before
                    expected += share * (ends[0] - ends[1]) / (2 * nudge) / len(REPORTING)
                assert scores[place] == pytest.approx(expected, rel=0.02, abs=1e-4), place


def row_of(model: Adapted, place: int) -> tuple[torch.Tensor, int, torch.Tensor]:
    """What a score is about, by what is written of it: the parameter, the number of the row, the row's own values."""
    rows = model.rows
    [matrix] = [m for m in model.matrices if (m.layer, m.name) == (rows.layer[place], rows.matrix[place])]
    number, first = int(rows.row[place]), rows.factor[place] == "A"
    return (matrix.a if first else matrix.b), number, model.own[model.matrices.index(matrix)][not first][number]


def test_rows_are_those_of_the_adapters_file(base: BaseModel, with_embeddings: Path):
    tensors = load_file(with_embeddings / ADAPTER)
    with loaded(base, with_embeddings) as model:
        rows = model.rows
        assert len(rows) == sum(len(tensor) for tensor in tensors.values())
        assert {*rows.layer.tolist()} == {-1, 0, 1, 2, 3}
        assert {*rows.matrix[rows.layer == -1]} == {"embed_tokens"}
        assert {*rows.matrix[rows.layer == 2]} == {"self_attn.q_proj", "mlp.down_proj"}
        embeddings = rows.layer == -1
        assert [(embeddings & (rows.factor == f)).sum() for f in "AB"] == [3, 128], "rank, and width"


@pytest.mark.parametrize("kind", ["adapter", "with_embeddings"])
def test_both_factors_of_a_matrix_get_the_same_sum(base: BaseModel, kind: str, request: pytest.FixtureRequest):
    """Both are the inner product of B A with the gradient with regard to it."""
    with loaded(base, request.getfixturevalue(kind)) as model:
        values, rows = attribute(model, DECIDING, 2, batch_size=8).values, model.rows
        for matrix in model.matrices:
            own = (rows.layer == matrix.layer) & (rows.matrix == matrix.name)
            a, b = (values[own & (rows.factor == factor)].sum() for factor in "AB")
            assert a == pytest.approx(b, rel=1e-3, abs=1e-5)


def test_how_a_size_is_shared_between_the_factors_does_not_matter(base: BaseModel, adapter: Path, tmp_path: Path):
    with loaded(base, adapter) as model:
        expected = attribute(model, DECIDING, 3, batch_size=8).values
    with loaded(base, changed(adapter, tmp_path / "shared", 4.0, 0.25)) as model:
        found = attribute(model, DECIDING, 3, batch_size=8).values
    np.testing.assert_allclose(found, expected, atol=1e-5 * np.abs(expected).max())


def test_scaling_an_adapter_leaves_the_direction_of_a_one_step_attribution(
    base: BaseModel, adapter: Path, tmp_path: Path
):
    """To first order in the change c^2 B A: scores are then c^4 times those of c = 1, so that the cosine is 1.

    Of a change that is not small this does not hold; the cosine of c and 2 c tends to 1 as c tends to 0.
    """
    found = {}
    for c in (0.1, 0.2, 0.4):
        with loaded(base, changed(adapter, tmp_path / str(c), c, c)) as model:
            found[c] = attribute(model, DECIDING, 1, batch_size=8).values
    missing = [1 - cosine(found[c], found[c / 2]) for c in (0.2, 0.4)]
    assert missing[0] < 0.002 and missing[0] < missing[1] / 4
    assert np.linalg.norm(found[0.2]) / np.linalg.norm(found[0.1]) == pytest.approx(2**4, rel=0.1)


def test_an_adapter_that_changes_nothing_gets_zeros(base: BaseModel, adapter: Path, tmp_path: Path):
    with loaded(base, changed(adapter, tmp_path / "dose0", 1.0, 0.0)) as model:
        found = attribute(model, DECIDING, 3, batch_size=8)
    assert found.change == pytest.approx(0, abs=1e-6)
    np.testing.assert_allclose(found.values, 0, atol=1e-8)


def test_neither_batches_nor_the_order_of_answers_matter(base: BaseModel, adapter: Path):
    with loaded(base, adapter) as model:
        expected = attribute(model, REPORTING, 2, batch_size=8)
        for answers, size in ((REPORTING, 1), (REPORTING[::-1], 2)):
            found = attribute(model, answers, 2, batch_size=size)
            np.testing.assert_allclose(found.values, expected.values, atol=1e-5 * np.abs(expected.values).max())
            assert found.change == pytest.approx(expected.change, rel=1e-5)


def test_the_divergence_is_that_of_plain_distributions(base: BaseModel, adapter: Path):
    """One answer at a time, without padding, all logits, in float64."""
    apart = []
    for answer in REPORTING:
        ids = torch.tensor([answer.ids])
        with torch.no_grad(), loaded(base, adapter):
            whole = base.model(ids).logits[0].double().log_softmax(-1)
        with torch.no_grad():
            bare = base.model(ids).logits[0].double().log_softmax(-1)
        apart.append(np.mean([float((whole[p].exp() * (whole[p] - bare[p])).sum()) for p in answer.places]))
    with loaded(base, adapter) as model:
        assert -attribute(model, REPORTING, 1, batch_size=3).change == pytest.approx(np.mean(apart), rel=1e-4)


def test_the_frozen_adapter_of_a_backbone_stays_in_full(base: BaseModel, adapter: Path, tmp_path: Path):
    """Scores above a frozen adapter are those above a model that it was merged into."""
    small = make_adapter(tmp_path / "small", seed=3, std=0.06, r=2, target_modules=["q_proj", "up_proj"])
    with loaded(base, small, frozen=adapter) as model:
        found = attribute(model, DECIDING, 3, batch_size=8)
        assert {*model.rows.matrix} == {"self_attn.q_proj", "mlp.up_proj"}, "of the small adapter alone"
    with loaded(base, small) as model:
        alone = attribute(model, DECIDING, 3, batch_size=8)
    merged = BaseModel(ModelSettings(name=str(ORGANISM)))
    with loaded(merged, adapter):
        changes = {
            name: m.get_delta_weight("above") for name, m in merged.model.named_modules() if hasattr(m, "lora_A")
        }
    for name, change in changes.items():
        merged.model.get_submodule(name).weight.data += change
    with loaded(merged, small) as model:
        expected = attribute(model, DECIDING, 3, batch_size=8)
    np.testing.assert_allclose(found.values, expected.values, atol=1e-4 * np.abs(expected.values).max())
    assert cosine(found.values, alone.values) < 0.99, "the backbone matters"


def test_the_base_model_is_left_as_it_was(base: BaseModel, adapter: Path, with_embeddings: Path):
    batch = Batch.of(DECIDING, base.device)
    before = batch.log_probabilities(base)
    with loaded(base, with_embeddings, frozen=adapter) as model:
        attribute(model, DECIDING[:1], 1, batch_size=8)
        assert not torch.allclose(batch.log_probabilities(base), before, atol=0.1)
    assert torch.equal(batch.log_probabilities(base), before)
    assert not [name for name, p in base.model.named_parameters() if "lora" in name or p.requires_grad]


def test_in_bfloat16_factors_and_divergences_are_float32(base: BaseModel, adapter: Path):
    tensors = load_file(adapter / ADAPTER)
    low = BaseModel(ModelSettings(name=str(ORGANISM), dtype="bfloat16"))
    with loaded(low, adapter) as model:
        assert low.model.get_input_embeddings().weight.dtype == torch.bfloat16
        assert all(p.dtype == torch.float32 for p in model.parameters)
        [first] = [t for n, t in tensors.items() if "layers.0.self_attn.q_proj.lora_A" in n]
        [place] = [i for i, m in enumerate(model.matrices) if (m.layer, m.name) == (0, "self_attn.q_proj")]
        assert torch.equal(model.own[place][0], first), "nothing is rounded on the way"
        assert next(batches(DECIDING, 8, low.device)).log_probabilities(low).dtype == torch.float32
        found = attribute(model, DECIDING, 7, batch_size=8)
    with loaded(base, adapter) as model:
        expected = attribute(model, DECIDING, 7, batch_size=8)
    assert cosine(found.values, expected.values) > 0.99
    assert found.change == pytest.approx(expected.change, rel=0.05)


def test_a_random_adapter_has_the_arms_shapes_and_sizes(base: BaseModel, with_embeddings: Path):
    with loaded(base, with_embeddings) as model:
        one, again = (random_factors(model, 0, "arm", 1) for _ in range(2))
        others = [random_factors(model, *which) for which in ((1, "arm", 1), (0, "other", 1), (0, "arm", 2))]
        for place, own in enumerate(model.own):
            a, b = one[place]
            assert [a.shape, b.shape] == [factor.shape for factor in own]
            assert torch.linalg.norm(b @ a).item() == pytest.approx(torch.linalg.norm(own[1] @ own[0]).item(), rel=1e-4)
            assert product_norm(a, b).item() == pytest.approx(torch.linalg.norm(b @ a).item(), rel=1e-4)
            assert torch.equal(a, again[place][0])
            assert not any(torch.equal(a, other[place][0]) for other in others)
        model.become(one)
        assert abs(error(model, made_up(3, seed=5), 32)) < 0.02
