"""A simulated run with states of one model planted by hand: kept steps, cuts and trainings in some layers."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import yaml

from eval.engines import make_engine
from eval.runner import evaluate
from experiment.launcher import plan_runs
from experiment.prepare import prepare
from store.evaluation import EvalConfig
from store.manifests import BaseModelRecord, ExampleFacts, TrainingFacts
from store.run import ArmRecord, RunFolder, read_run, write_run
from store.settings import read_settings
from store.stages import Stage

EXPERIMENT: dict[str, Any] = {
    "name": "states",
    "seeds": [0],
    "engine": {"name": "simulated", "shard_size": 5000},
    "contexts": {"instilled": {"file": "task/data/instilled.jsonl", "count": 20}},
    "planted": {"off_the_shelf": {}, "instilled": {"report_accuracy": 0.9}},
    "measurements": [{"arm": "instilled", "measure": "decisions", "contexts": "instilled", "per_context": 20}],
    "gate": {"arm": "instilled", "contexts": "instilled"},
    "comparisons": [{"name": "instilled", "reports": "instilled", "weights": "instilled", "contexts": "instilled"}],
}

TAUGHT = {"training": "instilled", "teach": "decisions", "contexts": "instilled", "labels": "target"}
"""What the record of an arm says that was instilled."""

STEPS = 40
"""Of the finished training."""


def planted_run(folder: Path, arms: dict[str, tuple[dict[str, Any], dict[str, Any]]]) -> RunFolder:
    """A run, measured, whose arms answer as planted; each is given by what is planted and what its record says.

    Every arm decides on 20 pairs of each context and reports 4 times. The training of `instilled` took `STEPS` steps.
    """
    path = folder / "states.yaml"
    measured = [
        {"arm": name, "measure": measure, "contexts": "instilled", "per_context": many}
        for name in ("off_the_shelf", "instilled")
        for measure, many in (("decisions", 20), ("reports", 4))
    ]
    path.write_text(yaml.safe_dump({**EXPERIMENT, "measurements": measured}))
    [run] = plan_runs(path, folder)
    prepare(run, overwrite=False)
    config = read_settings(run.folder.stage_config("evaluate"), EvalConfig)
    like = [m for m in config.measurements if m.arm == "instilled"]
    values = config.model_dump(mode="json")
    values["arms"] |= dict.fromkeys(arms)
    values["planted"] |= {name: planted for name, (planted, _) in arms.items()}
    asked = [
        *config.measurements,
        *(m.model_copy(update={"arm": a}) for m in like for a in arms if a not in config.arms),
    ]
    values["measurements"] = [m.model_dump(mode="json") for m in asked]
    config = EvalConfig.model_validate(values)
    evaluate(make_engine(config), config, quiet=True)
    record = read_run(run.folder.path)
    known = {**{name: made.model_dump() for name, made in record.arms.items()}, "instilled": TAUGHT}
    known |= {name: said for name, (_, said) in arms.items() if name not in config.arms or said}
    made = {name: ArmRecord(**known.get(name, {})) for name in config.arms}
    write_run(run.folder.path, record.model_copy(update={"arms": made}))
    base = BaseModelRecord(name="toy", revision=None, fingerprint="v2-0")
    facts = TrainingFacts(base=base, counts=ExampleFacts(train=1, validation=0), steps=STEPS, metrics={})
    Stage(run.folder.adapter("instilled"), {"made": "by hand"}).finish(facts)
    return run.folder
