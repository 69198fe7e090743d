"""Write the weights that drive an arm's decisions, so that a training can be taught to report them.

    python -m analysis.learned --config runs/controls-seed0/stages/instilled.weights.yaml

Labels of reports are usually the weights that were taught. These are the weights that were learned, as the replication
estimator finds them in the arm's decisions; a report trained on them says nothing of what was taught beside.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import numpy as np

from analysis.study.comparisons import measure_weights
from store.console import run_command, say
from store.contexts import load_contexts
from store.files import hash_file
from store.learned import LearnedConfig, LearnedFacts
from store.locks import held
from store.manifests import read_manifest
from store.settings import read_settings
from store.stages import Stage, read_origin, stage_key
from store.trials import read_decisions
from store.weights import save_weights
from task.errors import InputError


def learn(config: LearnedConfig, overwrite: bool = False) -> LearnedFacts:
    """Measure weights and write them; whole numbers from -100 to 100, as the taught ones.

    Raises:
        InputError: No trials, or no context whose decisions determine weights.
    """
    trials = Path(config.trials)
    inputs = {
        "trials": stage_key(read_origin(trials).depends_on),
        "contexts": [hash_file(Path(file)) for file in config.context_files],
        "only": config.only,
        "seed": config.seed,
    }
    with held(Path(config.output)):
        stage = Stage(Path(config.output), inputs, overwrite, settings=config.model_dump())
        if stage.finished:
            return read_manifest(stage.folder, LearnedFacts).facts
        contexts = {c.name: c for file in config.context_files for c in load_contexts(file)}
        measured = measure_weights(read_decisions(trials, contexts), config.seed)
        rows = dict(zip(measured.contexts, measured.weights, strict=True))
        found = {n: np.round(rows[n]) + 0.0 for n in config.only if n in rows and np.isfinite(rows[n]).all()}
        undetermined = [name for name in config.only if name not in found]
        if not found:
            raise InputError(
                f"{trials}: decisions determine the weights of none of {len(config.only)} contexts; ask for more of "
                "them in a context, or look at the arm's gate"
            )
        save_weights(found, config.weights)
        stage.finish(facts := LearnedFacts(contexts=len(found), undetermined=undetermined))
        return facts


def main() -> None:
    """Command line: `--config FILE.yaml [--overwrite]`."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--config", type=Path, required=True)
    parser.add_argument("--overwrite", action="store_true", help="redo it where an earlier result differs")
    arguments = parser.parse_args()
    config = read_settings(arguments.config, LearnedConfig)
    facts = learn(config, arguments.overwrite)
    missing = f"; decisions determine none in {len(facts.undetermined)} more" if facts.undetermined else ""
    say(f"{config.weights}: weights of {facts.contexts} contexts{missing}")


if __name__ == "__main__":
    run_command(main)
