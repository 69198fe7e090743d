"""What an experiment file says of looking inside arms: which ones, on which contexts, how closely."""

from __future__ import annotations

from pydantic import Field, field_validator

from store.settings import WrittenSettings
from store.values import Count, FullName, Name


class Attribution(WrittenSettings):
    """Which arms' adapters get scores, row by row, for deciding and for reporting (see `store.inside`).

    Attributes:
        arms: Arms; of a training that makes an arm of each context, or one a fold, all of them.
        contexts: Groups that they are asked about. Where a training makes an arm of each context, each is asked about
            its own instead.
        prompts: Of each context, for each task.
        steps, random, batch_size: See `store.inside.AttributeConfig`.
    """

    arms: list[FullName] = Field(min_length=1)
    contexts: list[Name] = Field(min_length=1)
    prompts: Count = 50
    steps: Count = 7
    random: int = Field(default=0, ge=0, le=1000)
    batch_size: Count = 8

    @field_validator("contexts", mode="before")
    @classmethod
    def _one_or_more(cls, value: object) -> object:
        return [value] if isinstance(value, str) else value


class Patching(WrittenSettings):
    """Which of the arms with scores are reduced to a few of their matrices.

    Attributes:
        random: Random orders of the matrices, beside those by the scores.
    """

    arms: list[FullName] = Field(min_length=1)
    random: int = Field(default=3, ge=0, le=1000)


class Inside(WrittenSettings):
    """What is looked into: two more stages, `attribute` and `patch`."""

    attribution: Attribution
    patching: Patching | None = None
