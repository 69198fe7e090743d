"""Configuration of an evaluation: the engine, the arms, and which arm is measured how on which contexts."""

from __future__ import annotations

import hashlib
import json
import math
from dataclasses import replace
from functools import cached_property
from pathlib import Path
from typing import Annotated, Any, Literal, Self

from pydantic import Field, JsonValue, field_validator, model_validator

from store.contexts import load_named_contexts
from store.files import hash_file
from store.settings import WrittenSettings
from store.values import Count, FullName, Name, Number, PathText, Table
from store.weights import load_weights
from store.wordings import read_wordings
from task.contexts import ChoiceContext
from task.errors import InputError, shown
from task.prompts import DEFAULT, PROMPTS, Framing, Measure, Variant, Wording, Wordings, frame
from task.trials import sample_trials

Attention = Literal["eager", "sdpa", "flash_attention_2", "flash_attention_3", "flex_attention"]
"""Kernels that come with the libraries; any other name is code that would be fetched from the Hub and run."""


class ModelSettings(WrittenSettings):
    """The base model of all arms."""

    name: PathText
    revision: str | None = None
    dtype: Literal["float32", "bfloat16", "float16"] = "float32"
    attn_implementation: Attention | None = None
    template: Table = Field(default_factory=dict)
    trust_remote_code: Literal[False] = False  # kept for the run.json of earlier runs: such code is never run


class EngineSettings(WrittenSettings):
    """How trials are answered.

    Attributes:
        name: `transformers`, `vllm`, or `simulated` (needs no model); `auto` is vLLM where there is CUDA and vLLM is
            installed, transformers otherwise.
        batch_size: Prompts in one forward pass (transformers; vLLM fills its batches itself).
        shard_size: Rows written at a time; what a kill loses at most.
        report_tokens: Most tokens of a free report; a constrained one ends by itself.
        processes: Processes that share the trials, each with GPUs of its own where there are any.
        max_prompt_tokens, max_reply_tokens: Bounds on the tokens of any prompt and of any reply, derived from the
            planned trials; together the length that an engine must hold in memory. None where nothing was derived.
        vllm: Further arguments of `vllm.LLM`, on top of those that the engine derives; `tensor_parallel_size: k` gives
            each process k GPUs.
    """

    name: Literal["auto", "transformers", "vllm", "simulated"] = "auto"
    batch_size: Count = 16
    shard_size: Annotated[Count, Field(ge=2)] = 64
    report_tokens: Annotated[Count, Field(ge=8)] = 160
    processes: Count = 1
    max_prompt_tokens: Count | None = None
    max_reply_tokens: Count | None = None
    vllm: Table = Field(default_factory=dict)

    @field_validator("vllm")
    @classmethod
    def _check_vllm(cls, value: dict[str, Any]) -> dict[str, Any]:
        if value.get("trust_remote_code"):
            raise ValueError("trust_remote_code: the code of a model's folder is not run; leave it out")
        for name in ("tensor_parallel_size", "max_model_len"):
            if name in value and (type(value[name]) is not int or value[name] < 1):
                raise ValueError(f"{name} {shown(value[name])}: give a whole number, at least 1")
        share = value.get("gpu_memory_utilization", 1)
        if type(share) not in (int, float) or not 0 < share <= 1:
            raise ValueError(f"gpu_memory_utilization {shown(share)}: give a share above 0, at most 1")
        return value

    def shards(self, rows: int) -> int:
        """Number of shards that so many rows are written in."""
        return math.ceil(rows / self.shard_size)


class PlantedArm(WrittenSettings):
    """How an arm of the simulated engine answers.

    Attributes:
        sharpness: Log-odds of the better option per unit of utility difference divided by 100; below 0 it takes the
            worse one.
        noise: Standard deviation of the noise on the log-odds of each shown trial.
        position_bias: Added to the log-odds of letter A; a large one answers one letter throughout.
        decided_contexts: Share of the contexts with planted weights in which decisions depend on the options; in the
            others the arm answers one letter.
        no_letter: Share of shown trials to which the likeliest answer is no letter.
        not_finite: Share of shown trials whose log-probabilities are not finite.
        report_accuracy: Correlation of the reports with the weights that they are about.
        report_noise: Standard deviation of the noise on each single report, on the scale of the weights.
        report_about: `own` weights, or those of `another` context (what shuffled labels teach).
        unreadable: Share of free replies that are no JSON. Within a grammar the arm always reports, and it opens such
            a reply with probability 1 - `unreadable`.
        unreadable_reply: What it says then: `A`, say, where reports have collapsed into letters.
        third_person_accuracy: Correlation of what it says of another model with the same weights (common sense).
    """

    sharpness: Number = 5.0
    noise: Number = Field(default=0.0, ge=0, le=1e6)
    position_bias: Number = 0.0
    decided_contexts: Number = Field(default=1.0, ge=0, le=1)
    no_letter: Number = Field(default=0.0, ge=0, le=1)
    not_finite: Number = Field(default=0.0, ge=0, le=1)
    report_accuracy: Number = Field(default=0.0, ge=-1, le=1)
    report_noise: Number = Field(default=10.0, ge=0, le=1e6)
    report_about: Literal["own", "another"] = "own"
    unreadable: Number = Field(default=0.0, ge=0, le=1)
    unreadable_reply: str = "I would rather not say."
    third_person_accuracy: Number = Field(default=0.0, ge=-1, le=1)


class ContextGroup(WrittenSettings):
    """Contexts that a measurement covers: a group's name, its file, and which of them (all when None)."""

    name: Name
    file: PathText
    only: list[str] | None = None


class MeasureSettings(WrittenSettings):
    """What is measured of an arm, and how it is asked.

    Attributes:
        variant: Wording of the prompts, see `task.prompts.WORDINGS`.
        per_context: Pairs a context (each shown in both orders) or reports a context.
        constrained: Whether reports are forced into the JSON form that is asked for. Free ones are the measurement:
            within a grammar every reply can be read, also that of an arm that no longer reports.
        free_samples: Beside constrained reports: how many free replies a context, to the first of its prompts.
    """

    arm: FullName
    measure: Measure
    variant: Variant = Field(default_factory=lambda found: DEFAULT[found["measure"]])
    per_context: Count
    constrained: bool = False
    free_samples: Count = 1

    @model_validator(mode="after")
    def _check_constrained(self) -> Self:
        if self.constrained and self.measure == "decisions":
            raise ValueError("constrained: decisions are read from the letters' probabilities; leave it out")
        if self.free_samples > 1 and not self.constrained:
            raise ValueError(f"free_samples {self.free_samples}: all reports are free unless constrained: true is set")
        if self.free_samples > self.per_context:
            raise ValueError(f"free_samples {self.free_samples}: a context has only {self.per_context} reports")
        return self

    @model_validator(mode="after")
    def _check_variant(self) -> Self:
        known = PROMPTS[self.measure]
        if self.variant not in known:
            raise ValueError(f"{self.measure} have no variant {self.variant!r}; they have {', '.join(known)}")
        if not known[self.variant].options and self.per_context > 1:
            raise ValueError(f"{self.variant} shows no options, so a context has one prompt: give per_context: 1")
        return self

    @property
    def wording(self) -> Wording:
        """How the prompts are worded."""
        return PROMPTS[self.measure][self.variant]

    @property
    def orders(self) -> int:
        """Rows of each pair: decisions are shown in both orders, reports in one."""
        return 2 if self.measure == "decisions" else 1

    @property
    def rows_per_context(self) -> int:
        """Rows of each context in the trial file."""
        return self.per_context * self.orders

    @property
    def tells_weights(self) -> bool:
        """Whether the prompts tell weights."""
        return self.wording.told is not None


class Measurement(MeasureSettings):
    """One arm measured one way: becomes one trial file."""

    contexts: list[ContextGroup]

    @model_validator(mode="after")
    def _check_groups(self) -> Self:
        names = [group.name for group in self.contexts]
        if twice := [name for name in names if names.count(name) > 1]:
            raise ValueError(f"{self.measure} of {self.arm}: contexts {twice[0]!r} stand there twice; leave one out")
        for group in self.contexts:
            if group.only is not None and len({*group.only}) < len(group.only):
                raise ValueError(f"{self.measure} of {self.arm}: a context of {group.name!r} is named twice")
        return self

    def load(self) -> list[tuple[str, ChoiceContext]]:
        """Group and context of all that the arm is asked about, in order; all with the same number of attributes."""
        found = [(group.name, c) for group in self.contexts for c in load_named_contexts(group.file, group.only)]
        if len(sizes := {len(c.attributes) for _, c in found}) > 1:
            raise InputError(f"measurement of {self.arm}: contexts with {sorted(sizes)} attributes; measure apart")
        return found

    def rows(self) -> int:
        """Rows of the trial file."""
        return len(self.load()) * self.rows_per_context


def measure_folder(measure: Measure, variant: Variant, constrained: bool = False) -> str:
    """Name of the folder of an arm's trials: the measure, the variant where it is not the default, `constrained`."""
    parts = [measure, *([variant] if variant != DEFAULT[measure] else []), *(["constrained"] if constrained else [])]
    return "-".join(parts)


class EvalConfig(WrittenSettings):
    """One evaluation: one engine, any number of measurements.

    Attributes:
        output: Folder for `<arm>/<measure>/trials.parquet`.
        arms: Adapter folder of each arm, None for the base model.
        planted: For the simulated engine: how each arm answers.
        planted_weights: For the simulated engine: CSV of the weights that decide.
        told_weights: CSV of the weights that prompts of the variant `in_context` tell.
        wording: Wording file of the default variants (see `store.wordings`); None for our own words.
    """

    seed: int
    output: PathText
    engine: EngineSettings = EngineSettings()
    model: ModelSettings | None = None
    arms: dict[FullName, PathText | None]
    planted: dict[FullName, PlantedArm] = Field(default_factory=dict)
    planted_weights: str | None = None
    told_weights: str | None = None
    wording: str | None = None
    measurements: list[Measurement]

    @model_validator(mode="after")
    def _check_arms(self) -> EvalConfig:
        if len({name.lower() for name in self.arms}) < len(self.arms):
            raise ValueError(f"arms: two of {sorted(self.arms)} are one folder where case does not count; rename one")
        folders = [self.folder_of(m) for m in self.measurements]
        if twice := [folder for folder in folders if folders.count(folder) > 1]:
            raise ValueError(f"measurements: two are both {'/'.join(twice[0].parts[-2:])}; join them")
        if unknown := [m.arm for m in self.measurements if m.arm not in self.arms]:
            raise ValueError(f"measurements: arm {unknown[0]!r} is not among the arms {sorted(self.arms)}")
        if self.engine.name == "simulated" and (self.planted_weights is None or set(self.planted) < set(self.arms)):
            raise ValueError("the simulated engine needs planted_weights and an entry of planted for each arm")
        if self.engine.name != "simulated" and self.model is None:
            raise ValueError(f"engine {self.engine.name!r} needs a model")
        if self.told_weights is None and (telling := [m for m in self.measurements if m.tells_weights]):
            raise ValueError(f"told_weights: {telling[0].variant} of {telling[0].arm} tells weights; name their file")
        return self

    @cached_property
    def wordings(self) -> Wordings | None:
        """The words of the wording file."""
        return read_wordings(self.wording)

    def decision(self, context: ChoiceContext) -> Framing:
        """A context in the question that every arm decides by."""
        return frame("decisions", context, wordings=self.wordings)

    def folder_of(self, measurement: Measurement) -> Path:
        """Folder of a measurement's trial file."""
        asked = measurement.measure, measurement.variant, measurement.constrained
        return Path(self.output) / measurement.arm / measure_folder(*asked)

    def framings_of(self, measurement: Measurement) -> list[tuple[str, Framing]]:
        """Group and context of all that an arm is asked about, in the measurement's wording, with weights it tells."""
        told = load_weights(Path(str(self.told_weights))) if measurement.tells_weights else None
        found = []
        for group, context in measurement.load():
            if told is not None and context.name not in told:
                raise InputError(
                    f"{self.told_weights}: no weights for context {context.name!r}, which {measurement.variant} tells; "
                    "add a row, or leave it out"
                )
            weights = None if told is None else told[context.name]
            framing = frame(measurement.measure, context, measurement.variant, weights, wordings=self.wordings)
            found.append((group, framing))
        return found

    def inputs_of(self, measurement: Measurement) -> dict[str, JsonValue]:
        """All that a trial file depends on besides the engine."""
        told = {"told_weights": hash_file(Path(str(self.told_weights)))} if measurement.tells_weights else {}
        return {
            **measurement.model_dump(include={"arm", "measure", "variant", "per_context"}),
            "seed": self.seed,
            "contexts": [[g.name, hash_file(Path(g.file)), g.only] for g in measurement.contexts],
            "prompts": self._prompt_hash(measurement),
            "shard_size": self.engine.shard_size,
            **(self._reply_inputs(measurement) if measurement.measure == "reports" else {}),
            **told,
            **self._wording_inputs(measurement),
        }

    def _wording_inputs(self, measurement: Measurement) -> dict[str, JsonValue]:
        """The wording file, where trials are asked in its words."""
        asked = measurement.variant == DEFAULT[measurement.measure] or measurement.wording.follow_up is not None
        return {"wording": hash_file(Path(self.wording))} if self.wording and asked else {}

    def _reply_inputs(self, measurement: Measurement) -> dict[str, JsonValue]:
        """How reports are asked for; every measurement of them has free replies, all or a sample."""
        limit = {} if self.engine.name == "simulated" else {"report_tokens": self.engine.report_tokens}
        sample = {"free_samples": measurement.free_samples} if measurement.constrained else {}
        return {"constrained": measurement.constrained, **sample, **limit}

    def model_inputs(self) -> dict[str, JsonValue]:
        """What a model's answers depend on besides weights and trials; what only decides about speed is left out."""
        assert self.model is not None  # checked where the engine runs a model
        return {"dtype": self.model.dtype, "template": self.model.template}

    def _prompt_hash(self, measurement: Measurement) -> str:
        """Hash of the first prompt: trials measured in other words are other trials."""
        _, first = self.framings_of(measurement)[0]
        asked = [first]
        if first.wording.follow_up is not None:
            asked = [self.decision(first.context), replace(first, chose="A")]
        trial = sample_trials(self.seed, measurement.measure, first.context, 1)
        words = [message for framing in asked for message in framing.messages(trial.first[0], trial.second[0])]
        return hashlib.sha256(json.dumps(words).encode()).hexdigest()[:16]
