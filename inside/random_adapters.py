"""Random adapters: what scores look like where an adapter has the arm's shapes and sizes, and nothing was learned."""

from __future__ import annotations

import torch

from inside.adapted import Adapted, Factors
from task.seeding import stream


def random_factors(model: Adapted, seed: int, arm: str, draw: int) -> Factors:
    """Gaussian factors whose product has, matrix by matrix, the norm (Frobenius) of the arm's own product.

    A function of the seed, the arm's name, the number of the draw, and the matrix. How the size is shared between A
    and B does not matter to the scores: they are the same for c A and B / c.
    """
    found: Factors = []
    for matrix, own in zip(model.matrices, model.own, strict=True):
        draws = stream(seed, f"random adapter {draw} of {arm}", f"{matrix.layer} {matrix.name}")
        a, b = (
            torch.from_numpy(draws.standard_normal(tuple(factor.shape), dtype="float32")).to(factor.device)
            for factor in own
        )
        share = (product_norm(*own) / product_norm(a, b)).sqrt()
        found.append(((a * share).float(), (b * share).float()))
    return found


def product_norm(a: torch.Tensor, b: torch.Tensor) -> torch.Tensor:
    """Frobenius norm of B A, from products of shape (rank, rank): |B A|^2 = tr((B^T B)(A A^T)), float64."""
    a, b = a.double(), b.double()
    return ((b.T @ b) * (a @ a.T)).sum().clamp(min=0).sqrt()
