"""A run on disk: where its files are, and `run.json`, which says what it consists of.

A run is one experiment file with one seed. `run.json` is written by `experiment` and read by `analysis`, both through
`RunRecord`.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, Literal

from pydantic import Field, JsonValue, SerializerFunctionWrapHandler, model_serializer

from store.checkpoints import kept_adapter
from store.evaluation import measure_folder
from store.files import read_json, write_json
from store.model_file import ModelFile
from store.settings import Settings, WrittenSettings, read_versioned, validated
from store.values import FullName, Name
from task.errors import InputError
from task.names import AT
from task.prompts import DEFAULT, Measure, Variant
from task.weights import Estimator

BASE_ARM: Final = "off_the_shelf"
"""The base model, before any training."""

FORMAT: Final = 2
"""Of `run.json`. Format 1, without a number, kept comparisons in another form."""


@dataclass(frozen=True)
class RunFolder:
    """The folder of a run: the one place that names its files."""

    path: Path

    @property
    def name(self) -> str:
        """Name of the run, and of its W&B group."""
        return self.path.name

    @property
    def record(self) -> Path:
        """`run.json`."""
        return self.path / "run.json"

    @property
    def jobs(self) -> Path:
        """The SLURM jobs that were submitted for the run."""
        return self.path / "jobs.json"

    @property
    def inputs(self) -> Path:
        """Folder with the contexts and weights of the run, as they were when it began."""
        return self.path / "inputs"

    def contexts_file(self, group: str) -> Path:
        """The contexts of a group."""
        return self.inputs / f"{group}.jsonl"

    @property
    def wording(self) -> Path:
        """The wording file of the run, where the experiment names one."""
        return self.inputs / "wording.yaml"

    @property
    def target_weights(self) -> Path:
        """What is taught."""
        return self.inputs / "target_weights.csv"

    @property
    def redrawn_weights(self) -> Path:
        """What is taught in place of the target weights, where a training asks for weights drawn again."""
        return self.inputs / "redrawn_weights.csv"

    def learned(self, arm: str) -> Path:
        """Folder of the weights that an arm's decisions show, where a training is taught them."""
        return self.path / "learned" / arm

    @property
    def planted_weights(self) -> Path:
        """What decides in a simulation."""
        return self.inputs / "planted_weights.csv"

    @property
    def told_weights(self) -> Path:
        """What prompts tell, where an experiment has such prompts."""
        return self.inputs / "told_weights.csv"

    def stage_config(self, stage: str) -> Path:
        """The configuration that a stage reads."""
        return self.path / "stages" / f"{stage}.yaml"

    @property
    def environment(self) -> Path:
        """Shell lines that SLURM jobs of this run begin with."""
        return self.path / "stages" / "environment.sh"

    def log(self, stage: str) -> Path:
        """What a stage's libraries said."""
        return self.path / "logs" / f"{stage}.log"

    def examples(self, arm: str) -> Path:
        """What an arm learned from."""
        return self.path / "examples" / arm

    def adapter(self, arm: str) -> Path:
        """The adapter of a trained or derived arm, or of a step of a training that was kept: `instilled@100`."""
        training, at, step = arm.partition(AT)
        folder = self.path / "adapters" / training
        return kept_adapter(folder, int(step)) if at else folder

    @property
    def trials(self) -> Path:
        """All trials, a folder an arm."""
        return self.path / "trials"

    def trials_of(self, arm: str, measure: Measure, variant: Variant, constrained: bool = False) -> Path:
        """The trials of an arm in one measure and variant, free or constrained."""
        return self.trials / arm / measure_folder(measure, variant, constrained)

    @property
    def inside(self) -> Path:
        """What `inside.attribute` and `inside.patch` write, a folder an arm."""
        return self.path / "inside"

    @property
    def analysis(self) -> Path:
        """What `analysis.run` writes."""
        return self.path / "analysis"

    @property
    def published(self) -> Path:
        """What `scripts.publish` writes: the run as others can load it."""
        return self.path / "published"

    @property
    def tracked(self) -> Path:
        """Its manifest says what of the analysis was logged to W&B."""
        return self.path / "tracked"


LATER: Final = ("step", "layers", "on_top_of", "context", "cut_of", "cut", "kept_side", "layer_count")
"""Fields of an arm's record that runs from before there were such arms do not have."""


class ArmRecord(Settings):
    """An arm and the training that made it; None for the base model and for planted arms.

    Attributes:
        training: Name of the training in the experiment file.
        teach: What that training taught.
        contexts: The group that it taught; None where it taught only a part (folds), or shuffled or learned weights.
        start: The arm that the training went on from.
        labels: Which weights it taught.
        flip_under: The variant in which it taught the reversed weights as well.
        derived: Of a sum of adapters: the arms, with the parts that each is multiplied by.
        step: Of a step of a training that was kept: its number. The rest is as of the training.
        layers: The layers whose matrices the training changed, as the experiment file says them; None for all.
        on_top_of: The frozen arm that a small adapter was trained on top of.
        context: The one context that an arm was trained on, where a training makes an arm of each context.
        cut_of: Of an adapter that is cut in two: the arm whose adapter it is.
        cut: The first layer behind the cut, counted from 0.
        kept_side: Which half is kept: the layers below the cut, or those from it on.
        layer_count: Of an adapter that is cut in two: how many layers the model has.
    """

    training: str | None = None
    teach: Measure | None = None
    contexts: str | None = None
    start: str | None = None
    labels: str | None = None
    flip_under: Variant | None = None
    derived: dict[str, JsonValue] | None = None
    step: int | None = None
    layers: str | None = None
    on_top_of: str | None = None
    context: str | None = None
    cut_of: str | None = None
    cut: int | None = None
    kept_side: Literal["below", "from"] | None = None
    layer_count: int | None = None

    @model_serializer(mode="wrap")
    def _without_unset(self, dump: SerializerFunctionWrapHandler) -> dict[str, Any]:
        """The fields that came later are left out where nothing is said, so that earlier records stay as they are."""
        values: dict[str, Any] = dump(self)
        return {name: value for name, value in values.items() if value is not None or name not in LATER}


class Source(Settings):
    """An arm as it was asked, and the contexts that it speaks for in a comparison."""

    arm: FullName
    variant: Variant
    constrained: bool = False
    contexts: list[str]


class ComparisonRecord(Settings):
    """Reports held against weights on one group of contexts; several sources on a side are the folds of a training."""

    name: Name
    contexts: Name
    reports: list[Source]
    weights: list[Source]


class DifferenceRecord(WrittenSettings):
    """How much better the reports of one comparison agree than those of another."""

    name: Name
    before: Name
    after: Name


class GateRecord(WrittenSettings):
    """The arm whose instillation must have worked, and on which contexts."""

    arm: FullName
    contexts: Name


class RunRecord(Settings):
    """`run.json`: what a run consists of.

    Attributes:
        format: Version of the file.
        name: Name of the run.
        seed: Its seed.
        groups: Contexts file of each group, from the run's folder.
        arms: In the order of the plan.
        gate: Whose instillation is judged.
        comparisons, differences: In the order of the experiment file.
        families: Names of comparisons and differences that are tested together, by name of the family.
        smallest_effect: The smallest correlation, or difference of two, that would be of interest.
        estimator: What the learned weights of all comparisons and of the gate are estimated by.
        wording: The words of the default variants: ours (their names), or the wording file's name and hash.
        model: The model file, resolved; None for a simulation.
        experiment: The experiment file, resolved; for people and for W&B, no code looks into it.
    """

    format: Literal[2] = FORMAT
    name: FullName
    seed: int
    groups: dict[Name, str]
    arms: dict[FullName, ArmRecord]
    gate: GateRecord
    comparisons: list[ComparisonRecord]
    differences: list[DifferenceRecord]
    families: dict[Name, list[Name]] = Field(default_factory=dict)
    smallest_effect: float | None = None
    estimator: Estimator = "logistic"
    wording: str = "/".join(DEFAULT.values())
    model: ModelFile | None
    experiment: dict[str, JsonValue]


def read_run(folder: Path) -> RunRecord:
    """Read the record of a run.

    Raises:
        InputError: There is none, or it is of another version.
    """
    remedy = "start the experiment again under another name, or analyse the run with the version that made it"
    return read_versioned(RunFolder(folder).record, RunRecord, FORMAT, remedy)


def write_run(folder: Path, record: RunRecord) -> None:
    """Write `run.json`, unless it says the same already."""
    path = RunFolder(folder).record
    values = record.model_dump(mode="json")
    if not path.is_file() or read_json(path) != values:
        write_json(path, values)


class JobRecord(Settings):
    """A SLURM job that was submitted for a run: its id, the stages that it carries out, and how it was submitted."""

    id: str
    stages: list[str]
    command: list[str]


def read_jobs(run: RunFolder) -> dict[str, JobRecord]:
    """The jobs that were submitted for a run, the last of each name; empty when there were none."""
    if not run.jobs.is_file():
        return {}
    jobs = read_json(run.jobs)
    if not isinstance(jobs, dict):
        raise InputError(f"{run.jobs}: lists no jobs; delete it, squeue still knows those that wait or run")
    return {name: validated(job, JobRecord, run.jobs) for name, job in jobs.items()}


def write_jobs(run: RunFolder, jobs: Mapping[str, JobRecord]) -> None:
    """Note the jobs of a run."""
    write_json(run.jobs, {name: job.model_dump() for name, job in jobs.items()})
