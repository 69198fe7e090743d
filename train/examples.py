"""Write what a model learns from: decisions that follow target weights, or reports that state them.

    python -m train.examples --config runs/demo-seed0/stages/instilled.examples.yaml

The rows can be read by any fine-tuning tool, see `store.examples`.
"""

from __future__ import annotations

import argparse
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

from numpy.typing import NDArray

from store.console import run_command, say
from store.contexts import load_named_contexts
from store.examples import ChatMessage, Example, ExamplesConfig, Part, write_examples
from store.files import hash_file
from store.manifests import ExampleFacts, read_manifest
from store.settings import read_settings
from store.stages import Stage
from store.weights import load_weights
from task.contexts import ChoiceContext
from task.errors import InputError
from task.prompts import Measure, decision_answer, messages, report_answer
from task.trials import Purpose, prefers_first, sample_trials
from task.weights import shuffle_across

PURPOSES: dict[Measure, dict[Part, Purpose]] = {
    "decisions": {"train": "train_decisions", "validation": "validate_decisions"},
    "reports": {"train": "train_reports", "validation": "validate_reports"},
}


def make_examples(config: ExamplesConfig, overwrite: bool = False) -> ExampleFacts:
    """Write both files and their manifest; returns the number of rows in each."""
    contexts = load_named_contexts(config.contexts, config.only)
    weights = load_weights(Path(config.weights))
    if missing := [c.name for c in contexts if c.name not in weights]:
        raise InputError(f"{config.weights}: no weights for context {missing[0]!r}; add a row or leave the context out")
    if config.shuffle_weights:
        given = shuffle_across([c.name for c in contexts], config.seed)
        weights = {name: weights[other] for name, other in given.items()}
    inputs = {
        **config.model_dump(exclude={"output"}),
        "contexts": hash_file(Path(config.contexts)),
        "weights": hash_file(Path(config.weights)),
    }
    stage = Stage(Path(config.output), inputs, overwrite, settings=config.model_dump())
    if stage.finished:
        return read_manifest(stage.folder, ExampleFacts).facts
    files = {part: config.file(part) for part in PURPOSES[config.teach]}
    counts = {part: write_examples(path, examples(config, part, contexts, weights)) for part, path in files.items()}
    stage.finish(facts := ExampleFacts(**counts))
    return facts


def examples(
    config: ExamplesConfig, part: Part, contexts: Sequence[ChoiceContext], weights: Mapping[str, NDArray]
) -> Iterator[Example]:
    """The rows of one part, context by context."""
    count = config.train_per_context if part == "train" else config.validation_per_context
    for context in contexts:
        taught = weights[context.name]
        trials = sample_trials(config.seed, PURPOSES[config.teach][part], context, count)
        rows = zip(trials.index, trials.first, trials.second, prefers_first(trials, taught), strict=True)
        for index, a, b, chooses_a in rows:
            answer = decision_answer(bool(chooses_a)) if config.teach == "decisions" else report_answer(context, taught)
            prompt = [ChatMessage(**message) for message in messages(config.teach, context, a, b)]
            said = [*prompt, ChatMessage(role="assistant", content=answer)]
            yield Example(messages=said, context=context.name, index=int(index))


def main() -> None:
    """Command line: `--config FILE.yaml [--overwrite]`."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--config", type=Path, required=True)
    parser.add_argument("--overwrite", action="store_true", help="redo it where an earlier result differs")
    arguments = parser.parse_args()
    config = read_settings(arguments.config, ExamplesConfig)
    counts = make_examples(config, arguments.overwrite)
    say(f"{config.output}: {counts.train} training and {counts.validation} validation examples")


if __name__ == "__main__":
    run_command(main)
