"""How a line is checked: what it is given, what it gives back, and that nothing it does ends the check."""

from __future__ import annotations

import importlib
import importlib.util
import time
import traceback
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

from scripts.check_gpu.record import Device, Line
from scripts.check_gpu.sizes import Sizes

COLLECT = "install it, or carry it there: python -m scripts.collect_wheels"


class Skipped(Exception):
    """A line that says nothing on this machine, and why; `remedy` is what would make it say something."""

    def __init__(self, why: str, remedy: str = "") -> None:
        super().__init__(why)
        self.remedy = remedy


class Clock:
    """How much of a line's time is left. Long lines look at it between two pieces of work, and leave the rest out."""

    def __init__(self, seconds: float) -> None:
        self.seconds, self._began = seconds, time.monotonic()

    @property
    def spent(self) -> float:
        """Seconds since the line began."""
        return time.monotonic() - self._began

    @property
    def out(self) -> bool:
        """Whether the time is used up."""
        return self.spent >= self.seconds


@dataclass(frozen=True)
class Asked:
    """What a line is given: the device, how much to do, and its clock."""

    device: Device
    sizes: Sizes
    clock: Clock


@dataclass
class Found:
    """What a line gives back.

    Attributes:
        said: What was found, in words.
        figures: JSON values.
        problems: What does not hold; none in a line that passes.
        remedy: Against them.
        left_out: What there was no time for.
    """

    said: str = ""
    figures: dict[str, Any] = field(default_factory=dict)
    problems: list[str] = field(default_factory=list)
    remedy: str = ""
    left_out: list[str] = field(default_factory=list)


@dataclass(frozen=True)
class Check:
    """A line that can be asked for.

    Attributes:
        name, about: See `record.Line`.
        module: Its module in this package, with a function `check`; imported only when the line is run, as it may need
            packages that are not there.
        needs: Those packages, by the name under which Python imports them.
        seconds: Its time on a GPU. A line that takes three times as long is ended.
        remedy: Where it breaks off.
        by_name: Whether a check of the CPU leaves it out unless it is named.
    """

    name: str
    about: str
    module: str
    needs: tuple[str, ...]
    seconds: float
    remedy: str
    by_name: bool = False

    @property
    def function(self) -> Callable[[Asked], Found]:
        """What carries it out."""
        found: Callable[[Asked], Found] = importlib.import_module(f"scripts.check_gpu.{self.module}").check
        return found


def missing(names: Sequence[str]) -> list[str]:
    """Which of some packages cannot be imported."""
    return [name for name in names if importlib.util.find_spec(name) is None]


def carry_out(check: Check, device: Device, sizes: Sizes) -> Line:
    """Run one line in this process; what breaks off is a failed line."""

    def line(**what: Any) -> Line:
        return Line(name=check.name, about=check.about, seconds=round(clock.spent, 2), **what)

    clock = Clock(check.seconds if device == "cuda" else sizes.seconds)
    if absent := missing(check.needs):
        verb = "are" if len(absent) > 1 else "is"
        return line(state="skipped", said=f"{', '.join(absent)} {verb} not installed", remedy=COLLECT)
    try:
        found = check.function(Asked(device, sizes, clock))
    except Skipped as skipped:
        return line(state="skipped", said=str(skipped), remedy=skipped.remedy)
    except Exception as error:  # whatever it is, the other lines are still worth knowing
        said = f"{type(error).__name__}: {' '.join(str(error).split())[:300]}"
        return line(state="failed", said=said, remedy=check.remedy, traceback=traceback.format_exc()[-4000:])
    figures = {"figures": found.figures, "left_out": found.left_out}
    if found.problems:
        return line(state="failed", said="; ".join(found.problems), remedy=found.remedy or check.remedy, **figures)
    return line(state="passed", said=found.said, **figures)
