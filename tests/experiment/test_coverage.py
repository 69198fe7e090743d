"""Intervals around simulated reports cover the planted accuracy about as often as they say."""

from pathlib import Path

import numpy as np
import pytest

from analysis.stats.agreement import bootstrap_r, mean_reports
from eval.engines.simulated import SimulatedEngine
from store.contexts import DATA, load_contexts
from store.evaluation import EvalConfig, PlantedArm
from store.weights import save_weights
from task.prompts import frame
from task.replies import parse_report
from task.trials import ShownTrial, sample_trials
from task.weights import sample_weights

CONTEXTS = load_contexts(DATA / "instilled.jsonl")
STUDIES = 80


@pytest.mark.parametrize("accuracy", [0.0, 0.7])
def test_the_bootstrap_interval_covers_the_planted_accuracy(tmp_path: Path, accuracy: float):
    arms = [f"study{i}" for i in range(STUDIES)]
    true = np.stack([sample_weights(0, "target_weights", c) for c in CONTEXTS])
    save_weights(dict(zip([c.name for c in CONTEXTS], true, strict=True)), tmp_path / "weights.csv")
    engine = SimulatedEngine(
        EvalConfig(
            seed=0,
            output="out",
            engine={"name": "simulated"},
            arms=dict.fromkeys(arms),
            planted=dict.fromkeys(arms, PlantedArm(report_accuracy=accuracy, report_noise=0, unreadable=0.2)),
            planted_weights=str(tmp_path / "weights.csv"),
            measurements=[],
        )
    )
    shown = [
        ShownTrial(frame("reports", c), i, t.first[i], t.second[i], True)
        for c in CONTEXTS
        for t in [sample_trials(0, "reports", c, 3)]
        for i in range(3)
    ]
    covered = 0
    for study in arms:
        parsed = [
            parse_report(r, s.context.attribute_names)
            for r, s in zip(engine.report(study, shown, False), shown, strict=True)
        ]
        values = np.array([p.values or (np.nan,) * 5 for p in parsed]).reshape(len(CONTEXTS), 3, 5)
        low, high = bootstrap_r(mean_reports(values)[0], true, seed=0, resamples=1000)
        covered += low <= accuracy <= high
    # 95% of 80 is 76, with a standard deviation of 2.
    assert covered >= STUDIES * 0.875
