"""Manifests: what a finished folder holds, from what it was made, and where."""

from __future__ import annotations

from pathlib import Path
from typing import Final, Generic, Literal, TypeVar

from pydantic import BaseModel, ConfigDict, JsonValue

from store.settings import read_versioned

MANIFEST = "manifest.json"
"""File of a finished folder."""

FORMAT: Final = 2
"""Of manifests. Format 1, without a number, did not tell facts from provenance."""


class Facts(BaseModel):
    """What a kind of stage says of its result."""

    model_config = ConfigDict(extra="forbid", frozen=True)


class InputFacts(Facts):
    """Of a run's inputs: contexts of each group."""

    counts: dict[str, int]


class ExampleFacts(Facts):
    """Of training examples.

    Attributes:
        train, validation: Rows of `train.jsonl` and `validation.jsonl`.
        rehearsed: Training rows that are decisions, where the others teach reports.
        left_out: Contexts without weights to teach.
    """

    train: int
    validation: int
    rehearsed: int = 0
    left_out: list[str] = []


class BaseModelRecord(Facts):
    """The base model that an adapter belongs to."""

    name: str
    revision: str | None
    fingerprint: str


class AdapterFacts(Facts):
    """What the facts of every adapter say, however it was made: its base model.

    Attributes:
        changed: Of a derived adapter: the matrices that it changes.
    """

    model_config = ConfigDict(extra="ignore")

    base: BaseModelRecord
    changed: int | None = None


class KeptCheckpoint(Facts):
    """Which step's weights a training ended with, and the held-out measure that chose it."""

    step: int
    by: str


class TrainingFacts(Facts):
    """Of an adapter.

    Attributes:
        base: Its base model.
        counts: Training and validation rows.
        steps: Optimiser steps that were taken.
        stopped_early: Why training was stopped before its end; None if it was not.
        missing_skill: What the probes said that the base model lacks; None if they were not asked or all is there.
        kept: The chosen checkpoint; None where the last weights were kept.
        kept_steps: Steps whose adapters lie in `kept/`, of those that `keep_steps` names; None where it names none.
            One that is missing was not reached, or its adapter had diverged or learned nothing.
        metrics: What training and held-out evaluation measured, by TRL's names; None for what is no finite number.
    """

    base: BaseModelRecord
    counts: ExampleFacts
    steps: int
    stopped_early: str | None = None
    missing_skill: str | None = None
    kept: KeptCheckpoint | None = None
    kept_steps: list[int] | None = None
    metrics: dict[str, float | None]


class DerivedFacts(Facts):
    """Of a derived adapter, a sum of others.

    Attributes:
        base: Its base model.
        rank: Of the adapter.
        matrices: Matrices that it has.
        changed: Those of them that it changes; where there are none, the arm answers as its base model does.
    """

    base: BaseModelRecord
    rank: int
    matrices: int
    changed: int


class ModelFacts(Facts):
    """Of a model that this project makes or fetches: what it is called elsewhere, and what it came from."""

    model: str | None = None
    licence: str | None = None
    source: str | None = None
    lessons: int | None = None
    parameters: int | None = None


class Answering(Facts):
    """How fast trials were answered: seconds in the engine, summed over processes, and tokens where it has some."""

    seconds: float
    trials_per_second: float
    prompt_tokens: int | None = None
    computed_tokens: int | None = None
    reply_tokens: int | None = None
    share_from_cache: float | None = None
    tokens_per_second: float | None = None


class DecisionFacts(Facts):
    """Of a trial file of decisions.

    Attributes:
        rows: Shown trials.
        share_a: Share of A among the decisions that were made; None if none was.
        mean_letter_mass: Mean P(A) + P(B) of all rows; 0 where a log-probability is not finite.
        undecided: Rows without a decision, by reason.
        content: Hash of the trial file; None in manifests of versions that noted none.
        answering: How fast.
    """

    rows: int
    share_a: float | None
    mean_letter_mass: float
    undecided: dict[str, int] = {}
    content: str | None = None
    answering: Answering


class ReportFacts(Facts):
    """Of a trial file of reports.

    Attributes:
        rows: Reports.
        readable: Those that could be read.
        unreadable: The others, by reason.
        outside: Readable ones with a value beyond +-100.
        constrained: Whether they were forced into the grammar of their context.
        mean_opening: Mean probability that the model itself opens such a reply; None where reports are free.
        free_total, free_readable: Free replies beside the constrained ones, and those that could be read.
        content: Hash of the trial file; None in manifests of versions that noted none.
        answering: How fast.
    """

    rows: int
    readable: int
    unreadable: dict[str, int]
    outside: int
    constrained: bool = False
    mean_opening: float | None = None
    free_total: int = 0
    free_readable: int = 0
    content: str | None = None
    answering: Answering


class OutputFacts(Facts):
    """Of a folder that an analysis wrote: its files."""

    files: list[str]


class TrackedFacts(Facts):
    """Of what was logged to W&B: id of the run there, W&B's mode, number of figures."""

    id: str
    mode: str
    figures: int


F = TypeVar("F", bound=Facts)


class Manifest(BaseModel, Generic[F]):
    """`manifest.json`.

    Attributes:
        format: Version of the file.
        depends_on: All that the content is a function of: settings, and hashes of input files.
        settings: The settings as they were asked for, with paths; None where the folder belongs to no run.
        key: Hash of `depends_on`; what is made from this folder depends on it.
        git: Commit of the source tree, with `+changes` if files differ from it; None outside a checkout.
        packages: Versions.
        python: Version.
        host: System, machine and number of processors.
        wall_seconds: Since the process that finished the folder had opened it.
        facts: See the subclasses of `Facts`.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    format: Literal[2] = FORMAT
    depends_on: dict[str, JsonValue]
    settings: dict[str, JsonValue] | None = None
    key: str
    git: str | None
    packages: dict[str, str]
    python: str
    host: dict[str, JsonValue]
    wall_seconds: float
    facts: F


def read_manifest(folder: Path, facts: type[F]) -> Manifest[F]:
    """Read the manifest of a finished folder.

    Raises:
        InputError: There is none, or it is of another version or another kind of folder.
    """
    remedy = f"move {folder} away and make it again, or use the version that made it"
    return read_versioned(folder / MANIFEST, Manifest[facts], FORMAT, remedy)  # type: ignore[valid-type]
