"""An engine that answers from planted weights: the science is tested on choosers and reporters that are known."""

from __future__ import annotations

import json
from collections.abc import Sequence
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from store.evaluation import EvalConfig
from store.files import hash_file
from store.weights import load_weights
from task.replies import Decided
from task.seeding import stream, uniforms
from task.trials import ShownTrial
from task.weights import LARGEST, shuffle_across, utilities

REPORT_SCALE = 0.4
"""Reports are shrunk by this, so that noise seldom leaves +-100; a correlation does not depend on it."""


UNDECIDED_MASS = 0.02
"""P(A) + P(B) where an arm answers with no letter."""

FIXED_LOG_ODDS = 8.0
"""Log-odds of A in contexts in which an arm answers one letter."""


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

    def decide(self, arm: str, trials: Sequence[ShownTrial]) -> Decided:
        """Log-odds of A = sharpness x utility difference / 100 + position bias + noise.

        P(A) + P(B) is 1 where the arm decides, and `UNDECIDED_MASS` where no letter is its likeliest answer.
        """
        planted = self._arms[arm]
        log_odds = np.array([self._log_odds(arm, trial) for trial in trials])
        logps = np.stack([-np.logaddexp(0, -log_odds), -np.logaddexp(0, log_odds)], axis=1)
        no_letter = self._drawn("no_letter", planted.no_letter, arm, trials)
        logps[no_letter] += np.log(UNDECIDED_MASS)
        logps[self._drawn("not_finite", planted.not_finite, arm, trials)] = np.nan
        return Decided(logps, ~no_letter)

    def report(self, arm: str, trials: Sequence[ShownTrial], constrained: bool) -> list[str]:
        """A JSON report whose expectation correlates with the weights that it is about, see `PlantedArm`."""
        return [self._reply(arm, trial, constrained) for trial in trials]

    def opening(self, arm: str, trials: Sequence[ShownTrial]) -> NDArray[np.float64]:
        """The share of free replies that are reports, for each trial."""
        return np.full(len(trials), 1 - self._arms[arm].unreadable)

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
        if trial.context.name not in self._decided_contexts[arm]:
            return FIXED_LOG_ODDS
        options = np.stack([trial.option_a, trial.option_b])
        deciding = self._weights[trial.context.name] if told is None else told
        better_a, better_b = utilities(options, deciding, trial.context)
        purpose = f"simulated_choice/{arm}/{'AB' if trial.first_as_a else 'BA'}"
        noise = stream(self._seed, purpose, f"{trial.context.name}/{trial.index}").normal() * planted.noise
        return float(planted.sharpness * (better_a - better_b) / LARGEST + planted.position_bias + noise)

    @cached_property
    def _decided_contexts(self) -> dict[str, set[str]]:
        """The contexts in which an arm's decisions depend on the options: a share of those with planted weights."""
        names, found = sorted(self._weights), {}
        for arm, planted in self._arms.items():
            order = stream(self._seed, f"simulated_decided/{arm}", "").permutation(len(names))
            found[arm] = {names[i] for i in order[: round(planted.decided_contexts * len(names))]}
        return found

    def _drawn(self, what: str, share: float, arm: str, trials: Sequence[ShownTrial]) -> NDArray[np.bool_]:
        """Which trials belong to a share of all shown trials, shape (trials,)."""
        drawn = np.zeros(len(trials), dtype=bool)
        for row, trial in enumerate(trials if share else ()):
            purpose = f"simulated_{what}/{arm}/{'AB' if trial.first_as_a else 'BA'}"
            drawn[row] = uniforms(self._seed, purpose, trial.context.name, 1, 1, trial.index)[0, 0] < share
        return drawn

    def _reply(self, arm: str, trial: ShownTrial, constrained: bool) -> str:
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
        said = uniforms(self._seed, f"simulated_unreadable/{arm}", name, 1, 1, trial.index)[0, 0]
        if not constrained and said < planted.unreadable:
            return planted.unreadable_reply
        fresh = stream(self._seed, f"simulated_report/{arm}", f"{name}/{trial.index}").normal(size=len(about))
        values = np.round(REPORT_SCALE * (belief + planted.report_noise * fresh)).astype(int).tolist()
        return json.dumps(dict(zip(trial.context.attribute_names, values, strict=True)), ensure_ascii=False)


def weight_sd(attributes: int) -> float:
    """Standard deviation of weights drawn from U(-100, 100) and rescaled to a largest magnitude of 100.

    One of n has magnitude 100, and the others are uniform below it: the mean square is 100^2 (1 + (n - 1) / 3) / n.
    """
    return LARGEST * float(np.sqrt((1 + (attributes - 1) / 3) / attributes))
