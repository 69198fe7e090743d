"""Weights that were measured before a training, which it may then be taught to report."""

from __future__ import annotations

from pathlib import Path

from store.manifests import Facts
from store.settings import Settings

WEIGHTS = "weights.csv"
"""File of the weights."""


class LearnedConfig(Settings):
    """`python -m analysis.learned`: whose decisions are looked at, and where the weights are written.

    Attributes:
        trials: Folder of finished decision trials of an arm.
        context_files: Contexts files with all contexts of the trials.
        only: Names of the contexts that weights are wanted of.
        seed: Of the posterior's draws.
        output: Folder of the weights.
    """

    trials: str
    context_files: list[str]
    only: list[str]
    seed: int
    output: str

    @property
    def weights(self) -> Path:
        """The file that is written."""
        return Path(self.output) / WEIGHTS


class LearnedFacts(Facts):
    """Of measured weights.

    Attributes:
        contexts: With weights.
        undetermined: Contexts whose decisions determine none; they have no row.
    """

    contexts: int
    undetermined: list[str]
