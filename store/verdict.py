"""What every figure of a summary that may lack a meaning says first: whether it has one, and if not, why not."""

from __future__ import annotations

from typing import Any

from pydantic import SerializerFunctionWrapHandler, model_serializer

from store.settings import Settings


class Verdict(Settings):
    """Whether a figure has a meaning.

    Attributes:
        testable: Whether it has.
        reason: Why not; left out of the file where it has.
    """

    testable: bool
    reason: str | None = None

    @model_serializer(mode="wrap")
    def _without_empty_reason(self, serialise: SerializerFunctionWrapHandler) -> dict[str, Any]:
        values: dict[str, Any] = serialise(self)
        return values if self.reason else {name: value for name, value in values.items() if name != "reason"}
