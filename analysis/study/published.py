"""Figures that others have published, to be held beside those of a study."""

from __future__ import annotations

from dataclasses import dataclass

from analysis.study.released_results import PRINTED

FIGURES = ("learned_vs_target", "off_the_shelf", "instilled", "introspection_trained", "native_before", "native_after")
"""The comparisons whose r is printed, in the order of `PRINTED`."""


@dataclass(frozen=True)
class Published:
    """Figures of one study.

    Attributes:
        model: Whose.
        source: Where they stand.
        r: By comparison.
        readable: Reports of the comparison `instilled` that could be read.
        asked: Reports that were asked for.
    """

    model: str
    source: str
    r: dict[str, float]
    readable: int
    asked: int = 1000


PAPER = "Plunkett, Morris, Reddy, Morales 2025, arXiv 2505.17120"

PUBLISHED = (
    Published("GPT-4o", PAPER, dict(zip(FIGURES, PRINTED["gpt-4o"], strict=True)), readable=1000),
    Published("GPT-4o-mini", PAPER, dict(zip(FIGURES, PRINTED["gpt-4o-mini"], strict=True)), readable=574),
    Published(
        "Qwen2.5-7B",
        "a public LoRA replication, see configs/models/qwen2.5-7b-instruct.yaml",
        dict(zip(FIGURES, (0.85, 0.02, 0.26, 0.52, 0.18, 0.49), strict=True)),
        readable=904,
    ),
)
"""In the order of the page."""
