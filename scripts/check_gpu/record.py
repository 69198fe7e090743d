"""What a check found, line by line: `results/gpu/*.json`."""

from __future__ import annotations

from pathlib import Path
from typing import Final, Literal

from pydantic import Field, JsonValue

from store.files import write_json
from store.settings import Settings, read_versioned

FORMAT: Final = 1
"""Of the file."""

Device = Literal["cuda", "cpu"]
State = Literal["passed", "failed", "skipped"]


class Line(Settings):
    """One line of the check.

    Attributes:
        name: As after `--only`.
        about: What it looks at, in words.
        said: What it found; of a failed line what is wrong, of a skipped one why it was skipped.
        remedy: Of a failed or skipped line: what to do.
        seconds: That it took.
        left_out: What there was no time for.
        figures: What was measured.
        traceback: Of a line that broke off: where.
    """

    name: str
    about: str
    state: State
    said: str
    remedy: str = ""
    seconds: float = 0.0
    left_out: list[str] = Field(default_factory=list)
    figures: dict[str, JsonValue] = Field(default_factory=dict)
    traceback: str = ""


class CheckRecord(Settings):
    """A check of one machine.

    Attributes:
        format: Version of the file.
        device: What was checked.
        name: What the device calls itself.
        memory_gb: Of the first GPU, in 10^9 bytes; None on a CPU.
        devices: GPUs that torch sees.
        git, packages, python, host: As in a manifest, see `store.manifests.Manifest`.
        seconds: All lines together.
        lines: In the order of the check.
    """

    format: Literal[1] = FORMAT
    device: Device
    name: str
    memory_gb: float | None
    devices: int
    git: str | None
    packages: dict[str, str]
    python: str
    host: dict[str, JsonValue]
    seconds: float
    lines: list[Line]

    @property
    def failed(self) -> list[Line]:
        """The lines that do not hold."""
        return [line for line in self.lines if line.state == "failed"]

    def line(self, name: str) -> Line | None:
        """A line by its name; None where it was not asked for."""
        return next((line for line in self.lines if line.name == name), None)


def write_record(path: Path, record: CheckRecord) -> None:
    """Write a record; its folder is made."""
    path.parent.mkdir(parents=True, exist_ok=True)
    write_json(path, record.model_dump(mode="json"))


def read_record(path: Path) -> CheckRecord:
    """Read a record.

    Raises:
        InputError: There is none, or it is of another version.
    """
    return read_versioned(path, CheckRecord, FORMAT, "check again: python -m scripts.check_gpu --out FILE")
