"""An adapter within a base model, as one sees it from inside: its matrices, their factors, their rows.

What is looked at is the adapter above the *backbone*: the base model, and with it the frozen adapter of an arm that was
trained on top of another. The backbone is always there in full.

A LoRA matrix changes a weight of shape (out, in) by `scaling * B A`. A *row* is what the factor's own tensor has as a
row. The sources of attribution say "a score a row of every adapter matrix" and no more, so this reading is ours:

- of A, shape (rank, in), a row is one direction that is read from the layer's input;
- of B, shape (out, rank), a row is one unit of the layer's output, with all directions that are written to it;
- of an adapter of embeddings, A has shape (rank, vocabulary) and B (width, rank): a row of A is one direction over all
  tokens, a row of B one unit of the embedding.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from peft import PeftModel
from peft.tuners.lora import LoraLayer
from torch import Tensor

from inside.loading import BaseModel
from store.derived import LAYER
from store.inside import InsideArm
from store.inside_tables import OUTSIDE, Rows

ABOVE, BACKBONE = "above", "backbone"
"""Names of the two adapters in PEFT."""

Factors = list[tuple[Tensor, Tensor]]
"""Values of A and B of each matrix, in the order of the matrices."""


@dataclass(frozen=True)
class Matrix:
    """One matrix that the adapter changes.

    Attributes:
        layer: Counted from 0, `OUTSIDE` for none.
        name: In its layer.
        a: Shape (rank, in), float32.
        b: Shape (out, rank), float32.
    """

    layer: int
    name: str
    a: torch.nn.Parameter
    b: torch.nn.Parameter
    module: LoraLayer


class Adapted:
    """A base model with the adapter that is looked at, made by `adapted`.

    Attributes:
        base: The base model.
        model: Its transformers model, with the adapters in it.
        matrices: Of the adapter, in the order of the model's modules.
        own: The arm's own factors.
        rows: The rows of all matrices: those of A, then those of B, matrix by matrix.
    """

    def __init__(self, base: BaseModel) -> None:
        self.base, self.model = base, base.model
        modules = [(name, m) for name, m in self.model.named_modules() if isinstance(m, LoraLayer)]
        self.matrices = [_matrix(name, module) for name, module in modules if ABOVE in module.scaling]
        self._scaling = [matrix.module.scaling[ABOVE] for matrix in self.matrices]
        self._factors: Factors = []
        self.own: Factors = [(m.a.detach().clone(), m.b.detach().clone()) for m in self.matrices]
        self.rows = _rows(self.matrices)
        self.become(self.own)

    def become(self, factors: Factors) -> None:
        """Take other factors of the same shapes as the whole adapter, at full strength."""
        self._factors = factors
        self.scale(1.0)

    @torch.no_grad()
    def scale(self, strength: float) -> None:
        """Multiply the factors, A as well as B, by a number: 0 leaves the backbone, 1 is the whole adapter."""
        for matrix, (a, b) in zip(self.matrices, self._factors, strict=True):
            torch.mul(a, strength, out=matrix.a.data)
            torch.mul(b, strength, out=matrix.b.data)

    @contextmanager
    def only(self, kept: Collection[int]) -> Iterator[None]:
        """Within it, only some matrices, by their places, change the backbone."""
        try:
            for place, (matrix, scaling) in enumerate(zip(self.matrices, self._scaling, strict=True)):
                matrix.module.scaling[ABOVE] = scaling if place in kept else 0.0
            yield
        finally:
            for matrix, scaling in zip(self.matrices, self._scaling, strict=True):
                matrix.module.scaling[ABOVE] = scaling

    def forget_gradients(self) -> None:
        """Let the gradients begin at zero."""
        for parameter in self.parameters:
            parameter.grad = None

    def row_sums(self) -> Tensor:
        """For each row the sum of its values times their gradients, float64, shape (rows,)."""
        sums = []
        for matrix, factors in zip(self.matrices, self._factors, strict=True):
            for parameter, value in zip((matrix.a, matrix.b), factors, strict=True):
                gradient = torch.zeros_like(value) if parameter.grad is None else parameter.grad
                sums.append((value.double() * gradient.double()).sum(dim=1))
        return torch.cat(sums).cpu()

    @property
    def parameters(self) -> list[torch.nn.Parameter]:
        """The factors as the model has them."""
        return [parameter for matrix in self.matrices for parameter in (matrix.a, matrix.b)]


@contextmanager
def adapted(base: BaseModel, arm: InsideArm) -> Iterator[Adapted]:
    """A base model with an arm's adapter and what is below it; afterwards the base model is as it was."""
    model = PeftModel.from_pretrained(base.model, arm.adapter, adapter_name=ABOVE)
    try:
        if arm.frozen is not None:
            model.load_adapter(arm.frozen, adapter_name=BACKBONE)
        model.base_model.set_adapter([ABOVE, BACKBONE] if arm.frozen is not None else [ABOVE])
        model.requires_grad_(False).eval()
        yield Adapted(base)
    finally:
        model.unload()


def _matrix(name: str, module: LoraLayer) -> Matrix:
    """The matrix of a layer that PEFT has put into the model, ready for gradients."""
    found = LAYER.search(name)
    if ABOVE in module.lora_embedding_A:
        # A token that fills up batches stands in prompts, too (it often ends turns), and PyTorch would give it no
        # gradient: what it does would be missing in the scores.
        module.get_base_layer().padding_idx = None
        a, b = module.lora_embedding_A[ABOVE], module.lora_embedding_B[ABOVE]
    else:
        a, b = module.lora_A[ABOVE].weight, module.lora_B[ABOVE].weight
    for factor in (a, b):
        factor.data = factor.data.float()
        factor.requires_grad_(True)
    if found is None:
        return Matrix(OUTSIDE, name.rpartition(".")[2], a, b, module)
    return Matrix(int(found[1]), name[found.end() :], a, b, module)


def _rows(matrices: Sequence[Matrix]) -> Rows:
    """The rows of all matrices, in the order of `Adapted.row_sums`."""
    sizes = [(m, factor, len(values)) for m in matrices for factor, values in (("A", m.a), ("B", m.b))]
    counts = [count for _, _, count in sizes]

    def repeated(values: Sequence[Any]) -> Any:
        return np.repeat(np.array(values), counts)

    return Rows(
        layer=repeated([m.layer for m, _, _ in sizes]).astype(np.int32),
        matrix=repeated([m.name for m, _, _ in sizes]),
        factor=repeated([factor for _, factor, _ in sizes]),
        row=np.concatenate([np.arange(count, dtype=np.int32) for count in counts]),
    )
