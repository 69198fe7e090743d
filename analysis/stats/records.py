"""Results that go to JSON."""

from __future__ import annotations

import math
from dataclasses import asdict
from typing import Any


class Record:
    """Base of frozen dataclasses of results: `as_dict` for `summary.json` and tables."""

    def as_dict(self) -> dict[str, Any]:
        """The fields as JSON values: NaN, which JSON does not have, becomes None."""
        values = asdict(self)  # type: ignore[call-overload]  # subclasses are dataclasses
        return {name: nan_to_none(value) for name, value in values.items()}


def nan_to_none(value: Any) -> Any:
    """The value, None for NaN."""
    return None if isinstance(value, float) and math.isnan(value) else value
