"""An engine that answers from planted weights: the science is tested on choosers and reporters that are known."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from store.evaluation import EvalConfig
from store.files import hash_file
from store.weights import load_weights
from task.seeding import stream, uniforms
from task.trials import ShownTrial
from task.weights import LARGEST, shuffle_across, utilities

REPORT_SCALE = 0.4
"""Reports are shrunk by this, so that noise seldom leaves +-100; a correlation does not depend on it."""


class SimulatedEngine:
    """A chooser and reporter with planted weights; every answer is a function of (seed, arm, wording, context, index).

    Told weights decide in place of the planted ones, and are reported with the arm's noise but without error. Of
    another model an arm says what correlates with the planted weights at `third_person_accuracy`. In any other wording
    it reports as it always does.
    """

    def __init__(self, config: EvalConfig) -> None:
        self._seed = config.seed
        self._arms = config.planted
        self._weights_file = Path(str(config.planted_weights))
        self._weights = load_weights(self._weights_file)
        self._another = shuffle_across(sorted(self._weights), config.seed)

    def decide(self, arm: str, trials: Sequence[ShownTrial]) -> NDArray[np.float64]:
        """Log-odds of A = sharpness x utility difference / 100 + position bias + noise; P(A) + P(B) = 1."""
        log_odds = np.array([self._log_odds(arm, trial) for trial in trials])
        return np.stack([-np.logaddexp(0, -log_odds), -np.logaddexp(0, log_odds)], axis=1)

    def report(self, arm: str, trials: Sequence[ShownTrial]) -> list[str]:
        """A JSON report whose expectation correlates with the weights that it is about, see `PlantedArm`."""
        return [self._reply(arm, trial) for trial in trials]

    def identity(self, arm: str) -> dict[str, Any]:
        """The planted weights and how the arm answers from them."""
        return {
            "engine": "simulated",
            "planted_weights": hash_file(self._weights_file),
            "planted": self._arms[arm].model_dump(),
        }

    def take_token_counts(self) -> dict[str, int]:
        """None: nothing is read."""
        return {}

    def _log_odds(self, arm: str, trial: ShownTrial) -> float:
        planted, told = self._arms[arm], trial.framing.told
        options = np.stack([trial.option_a, trial.option_b])
        deciding = self._weights[trial.context.name] if told is None else told
        better_a, better_b = utilities(options, deciding, trial.context)
        purpose = f"simulated_choice/{arm}/{'AB' if trial.first_as_a else 'BA'}"
        noise = stream(self._seed, purpose, f"{trial.context.name}/{trial.index}").normal() * planted.noise
        return float(planted.sharpness * (better_a - better_b) / LARGEST + planted.position_bias + noise)

    def _reply(self, arm: str, trial: ShownTrial) -> str:
        name, planted, told = trial.context.name, self._arms[arm], trial.framing.told
        about = self._weights[name if planted.report_about == "own" else self._another[name]]
        accuracy = planted.report_accuracy
        if told is not None:
            about, accuracy = np.array(told), 1.0
        elif trial.framing.wording.name == "third_person":
            # Drawn apart from what the arm believes of itself.
            arm, accuracy = f"{arm}, of another", planted.third_person_accuracy
        # What an arm believes of a context is the same in each of its reports; only the small noise is fresh.
        error = stream(self._seed, f"simulated_belief/{arm}", name).normal(size=len(about)) * weight_sd(len(about))
        belief = accuracy * about + np.sqrt(1 - accuracy**2) * error
        if uniforms(self._seed, f"simulated_unreadable/{arm}", name, 1, 1, trial.index)[0, 0] < planted.unreadable:
            return "I would rather not say."
        fresh = stream(self._seed, f"simulated_report/{arm}", f"{name}/{trial.index}").normal(size=len(about))
        values = np.round(REPORT_SCALE * (belief + planted.report_noise * fresh)).astype(int).tolist()
        return json.dumps(dict(zip(trial.context.attribute_names, values, strict=True)), ensure_ascii=False)


def weight_sd(attributes: int) -> float:
    """Standard deviation of weights drawn from U(-100, 100) and rescaled to a largest magnitude of 100.

    One of n has magnitude 100, and the others are uniform below it: the mean square is 100^2 (1 + (n - 1) / 3) / n.
    """
    return LARGEST * float(np.sqrt((1 + (attributes - 1) / 3) / attributes))
