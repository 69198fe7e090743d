"""Configuration of an evaluation: the engine, the arms, and which arm is measured how on which contexts."""

from __future__ import annotations

from typing import Any, Literal, Self

from pydantic import Field, model_validator

from store.settings import Settings
from task.prompts import DEFAULT, PROMPTS, Measure, Variant


class ModelSettings(Settings):
    """The base model of all arms."""

    name: str
    revision: str | None = None
    dtype: Literal["float32", "bfloat16", "float16"] = "float32"
    attn_implementation: str | None = None
    template: dict[str, Any] = Field(default_factory=dict)
    trust_remote_code: bool = False


class EngineSettings(Settings):
    """How trials are answered.

    Attributes:
        name: `transformers`, `vllm`, or `simulated` (needs no model); `auto` is vLLM where there is CUDA and vLLM is
            installed, transformers otherwise.
        batch_size: Prompts in one forward pass (transformers; vLLM fills its batches itself).
        shard_size: Rows written at a time; what a kill loses at most.
        constrain_reports: Whether reports are forced into the JSON schema of their context.
        report_tokens: Most tokens of a free report; a constrained one ends by itself.
        processes: Processes that share the trials, each with GPUs of its own where there are any.
        max_prompt_tokens, max_reply_tokens: Bounds on the tokens of any prompt and of any reply, derived from the
            planned trials; together the length that an engine must hold in memory. None where nothing was derived.
        vllm: Further arguments of `vllm.LLM`, on top of those that the engine derives; `tensor_parallel_size: k` gives
            each process k GPUs.
    """

    name: Literal["auto", "transformers", "vllm", "simulated"] = "auto"
    batch_size: int = Field(default=16, ge=1)
    shard_size: int = Field(default=64, ge=2)
    constrain_reports: bool = True
    report_tokens: int = Field(default=160, ge=8)
    processes: int = Field(default=1, ge=1)
    max_prompt_tokens: int | None = Field(default=None, ge=1)
    max_reply_tokens: int | None = Field(default=None, ge=1)
    vllm: dict[str, Any] = Field(default_factory=dict)


class PlantedArm(Settings):
    """How an arm of the simulated engine answers.

    Attributes:
        sharpness: Log-odds of the better option per unit of utility difference divided by 100.
        noise: Standard deviation of the noise on the log-odds of each shown trial.
        position_bias: Added to the log-odds of letter A.
        report_accuracy: Correlation of the reports with the weights that they are about.
        report_noise: Standard deviation of the noise on each single report, on the scale of the weights.
        report_about: `own` weights, or those of `another` context (what shuffled labels teach).
        unreadable: Share of reports that are no JSON.
        third_person_accuracy: Correlation of what it says of another model with the same weights (common sense).
    """

    sharpness: float = 5.0
    noise: float = Field(default=0.0, ge=0)
    position_bias: float = 0.0
    report_accuracy: float = Field(default=0.0, ge=-1, le=1)
    report_noise: float = Field(default=10.0, ge=0)
    report_about: Literal["own", "another"] = "own"
    unreadable: float = Field(default=0.0, ge=0, le=1)
    third_person_accuracy: float = Field(default=0.0, ge=-1, le=1)


class ContextGroup(Settings):
    """Contexts that a measurement covers: a group's name, its file, and which of them (all when None)."""

    name: str
    file: str
    only: list[str] | None = None


class MeasureSettings(Settings):
    """What is measured of an arm, and how it is asked.

    Attributes:
        arm: The arm.
        measure: `decisions` or `reports`.
        variant: Wording of the prompts, see `task.prompts.PROMPTS`.
        per_context: Pairs a context (each shown in both orders) or reports a context.
    """

    arm: str
    measure: Measure
    variant: Variant = Field(default_factory=lambda found: DEFAULT[found["measure"]])
    per_context: int = Field(ge=1)

    @model_validator(mode="after")
    def _check_variant(self) -> Self:
        known = PROMPTS[self.measure]
        if self.variant not in known:
            raise ValueError(f"{self.measure} have no variant {self.variant!r}; they have {', '.join(known)}")
        if not known[self.variant].options and self.per_context > 1:
            raise ValueError(f"{self.variant} shows no options, so a context has one prompt: give per_context: 1")
        return self

    @property
    def orders(self) -> int:
        """Rows of each pair: decisions are shown in both orders, reports in one."""
        return 2 if self.measure == "decisions" else 1

    @property
    def tells_weights(self) -> bool:
        """Whether the prompts tell weights."""
        return PROMPTS[self.measure][self.variant].told is not None


class Measurement(MeasureSettings):
    """One arm measured one way: becomes one trial file."""

    contexts: list[ContextGroup]


class EvalConfig(Settings):
    """One evaluation: one engine, any number of measurements.

    Attributes:
        seed: Seed of the trials.
        output: Folder for `<arm>/<measure>/trials.parquet`.
        model: The base model; None for the simulated engine.
        arms: Adapter folder of each arm, None for the base model.
        planted: For the simulated engine: how each arm answers.
        planted_weights: For the simulated engine: CSV of the weights that decide.
        told_weights: CSV of the weights that prompts of the variant `in_context` tell.
    """

    seed: int
    output: str
    engine: EngineSettings = EngineSettings()
    model: ModelSettings | None = None
    arms: dict[str, str | None]
    planted: dict[str, PlantedArm] = Field(default_factory=dict)
    planted_weights: str | None = None
    told_weights: str | None = None
    measurements: list[Measurement]

    @model_validator(mode="after")
    def _check_arms(self) -> EvalConfig:
        if unknown := [m.arm for m in self.measurements if m.arm not in self.arms]:
            raise ValueError(f"measurements: arm {unknown[0]!r} is not among the arms {sorted(self.arms)}")
        if self.engine.name == "simulated" and (self.planted_weights is None or set(self.planted) < set(self.arms)):
            raise ValueError("the simulated engine needs planted_weights and an entry of planted for each arm")
        if self.engine.name != "simulated" and self.model is None:
            raise ValueError(f"engine {self.engine.name!r} needs a model")
        if self.told_weights is None and (telling := [m for m in self.measurements if m.tells_weights]):
            raise ValueError(f"told_weights: {telling[0].variant} of {telling[0].arm} tells weights; name their file")
        return self
