"""What a planned stage is, and how the tokens of trials are counted."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from store.state import StagePlan
from task.contexts import ChoiceContext
from task.prompts import Measure, Variant


@dataclass(frozen=True)
class TrialTokens:
    """Tokens of the trials of a context in one wording.

    Attributes:
        prompt, reply: Of a typical trial.
        shared: What the prompts have in common from their beginning on.
        longest_prompt, longest_reply: Bounds on those of any trial with a free reply.
    """

    prompt: int
    reply: int
    shared: int
    longest_prompt: int
    longest_reply: int


TokenCount = Callable[[Measure, Variant, ChoiceContext], TrialTokens]
"""Tokens of the trials of (measure, variant, context)."""


@dataclass(frozen=True)
class PlannedStage(StagePlan):
    """A stage with its size.

    Attributes:
        size: In words.
        tokens: Estimate of the tokens that it reads and writes, counting each epoch.
        unique: Of an evaluation: the same with what the prompts of a context share counted once.
        notes: What else is worth knowing before it starts.
        needs: Names of the stages, other than those of the same arm before it, whose results it reads.
    """

    size: str = ""
    tokens: int = 0
    unique: int = 0
    notes: str = ""
    needs: tuple[str, ...] = ()
