"""Examples and a finished training for all tests of the training script."""

from pathlib import Path

import pytest

from store.contexts import DATA, load_contexts, save_contexts
from store.examples import ExamplesConfig
from store.weights import save_weights
from task.weights import sample_weights
from teaching import SECRETS, STEPS, run, settings
from train.examples import make_examples


@pytest.fixture(scope="session")
def examples(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("examples")
    contexts = load_contexts(DATA / "instilled.jsonl", 4)
    save_contexts(contexts, folder / "contexts.jsonl")
    save_weights({c.name: sample_weights(0, "target_weights", c) for c in contexts}, folder / "weights.csv")
    for name, teach, rehearse in (("decisions", "decisions", 0), ("reports", "reports", 0), ("mixed", "reports", 4)):
        make_examples(
            ExamplesConfig(
                contexts=str(folder / "contexts.jsonl"),
                weights=str(folder / "weights.csv"),
                teach=teach,
                output=str(folder / name),
                seed=0,
                rehearse=rehearse,
                train_per_context=8,
                validation_per_context=3,
            )
        )
    return folder


@pytest.fixture(scope="session")
def instilled(tiny_model: Path, examples: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    output = tmp_path_factory.mktemp("adapters") / "instilled"
    group = {"WANDB_RUN_GROUP": "demo-seed0", "WANDB_MODE": "offline"}
    values = settings(
        tiny_model, examples, output, report_to="wandb", run_name="demo-seed0/instilled", env=group, **STEPS
    )
    result = run(values, **SECRETS)
    assert result.returncode == 0, result.stderr
    assert not [line for line in (result.stdout + result.stderr).splitlines() for s in SECRETS.values() if s in line]
    return output
