"""Attributions and patchings with planted scores, as files of a run."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from store.files import write_json
from store.inside import TASKS, AttributionFacts, PatchingFacts, Task, patching_folder, scores_folder
from store.inside_tables import Patched, Rows, Scores, write_patching, write_scores
from store.manifests import MANIFEST, Facts, Manifest

Array = NDArray[np.float64]

LAYERS = 4
MATRICES = ("mlp.down_proj", "self_attn.q_proj")
SIZES = {"A": 3, "B": 12}
"""Rows of each factor."""

PER_LAYER = len(MATRICES) * sum(SIZES.values())


def rows_of(layers: int = LAYERS) -> Rows:
    """The rows of an adapter of two matrices a layer, in the order layer, matrix, factor."""
    found = [(k, m, f, i) for k in range(layers) for m in MATRICES for f, size in SIZES.items() for i in range(size)]
    layer, matrix, factor, row = zip(*found, strict=True)
    return Rows(np.array(layer, np.int32), np.array(matrix), np.array(factor), np.array(row, np.int32))


def truth(
    seed: int, cosine: float, layers: int = LAYERS, only: Mapping[Task, Sequence[int]] | None = None
) -> list[Array]:
    """What deciding and reporting use: two vectors with a given cosine, or each in some layers only."""
    rng = np.random.default_rng(seed)
    basis, _ = np.linalg.qr(rng.normal(size=(layers * PER_LAYER, 2)))
    d, r = basis.T * np.sqrt(layers * PER_LAYER)
    vectors = [d, cosine * d + np.sqrt(1 - cosine**2) * r]
    if only:
        layer = rows_of(layers).layer
        vectors = [vector * np.isin(layer, only[task]) for task, vector in zip(TASKS, vectors, strict=True)]
    return vectors


def plant_scores(
    inside: Path,
    arm: str,
    contexts: Sequence[str],
    vectors: Sequence[Array],
    noise: float = 0.3,
    draw: int = 0,
    unread: Sequence[str] = (),
    seed: int = 0,
) -> None:
    """Write the scores of an arm in both tasks: a vector a task, and noise in every context."""
    rng = np.random.default_rng([seed, draw, len(arm)])
    for task, vector in zip(TASKS, vectors, strict=True):
        kept = [name for name in contexts if task == "deciding" or name not in unread]
        folder = scores_folder(inside, arm, task, draw)
        folder.mkdir(parents=True)
        values = vector + noise * rng.normal(size=(len(kept), len(vector)))
        write_scores(folder, Scores(tuple(kept), rows_of(len(vector) // PER_LAYER), values))
        finish(
            folder,
            AttributionFacts(
                contexts=len(kept),
                left_out=[name for name in contexts if name not in kept],
                prompts=10 * len(kept),
                unreadable=3 if task == "reporting" else 0,
                steps=7,
                change=-2.0,
                scored=-1.98,
                relative_error=0.01,
                seconds=1.0,
            ),
        )


def plant_patching(
    inside: Path, arm: str, contexts: Sequence[str], half: Mapping[str, float], draws: int = 3, matrices: int = 8
) -> None:
    """Write the patching of an arm; `half` is the k at half recovery by `task/order`, on either side of a logistic."""
    sizes = [k for k in (1, 2, 4, 8, 16, 32) if k < matrices] + [matrices]
    rows = []
    for place, name in enumerate(contexts):
        backbone = 1.0 + place % 5
        for task in TASKS:
            for order, many in (("deciding", 1), ("reporting", 1), ("random", draws)):
                for draw in range(many):
                    for k in sizes:
                        steep = 2 * np.log2(k / half[f"{task}/{order}"]) + 0.3 * (draw - (many - 1) / 2)
                        kept = 1.0 if k == matrices else 1 / (1 + np.exp(-steep))
                        number = draw + 1 if order == "random" else 0
                        rows.append(Patched(task, order, number, k, name, backbone * (1 - kept), backbone))
    folder = patching_folder(inside, arm)
    folder.mkdir(parents=True)
    write_patching(folder, rows)
    finish(folder, PatchingFacts(contexts=len(contexts), left_out=[], matrices=matrices, unreadable=0, seconds=1.0))


def finish(folder: Path, facts: Facts) -> None:
    """Write the manifest of a stage; without provenance, which takes longer than all else here."""
    found = Manifest[Facts](
        depends_on={"folder": folder.name},
        key=folder.name,
        git=None,
        packages={},
        python="3",
        host={},
        wall_seconds=1.0,
        facts=facts,
    )
    write_json(folder / MANIFEST, {**found.model_dump(mode="json"), "facts": facts.model_dump(mode="json")})
