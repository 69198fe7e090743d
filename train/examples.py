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
from store.examples import ChatMessage, Example, ExamplesConfig, Part, rehearsed_decisions, write_examples
from store.files import hash_file
from store.locks import held
from store.manifests import ExampleFacts, read_manifest
from store.settings import read_settings
from store.stages import Stage
from store.weights import load_weights
from task.contexts import ChoiceContext
from task.errors import InputError
from task.prompts import Measure, decision_answer, frame, report_answer
from task.trials import Purpose, prefers_first, sample_trials
from task.weights import shuffle_across

PURPOSES: dict[Measure, dict[Part, Purpose]] = {
    "decisions": {"train": "train_decisions", "validation": "validate_decisions"},
    "reports": {"train": "train_reports", "validation": "validate_reports"},
}


def make_examples(config: ExamplesConfig, overwrite: bool = False) -> ExampleFacts:
    """Write the files and their manifest; returns the number of rows. Without validation rows there is no such file."""
    contexts = load_named_contexts(config.contexts, config.only)
    weights = load_weights(Path(config.weights))
    unknown = [c.name for c in contexts if c.name not in weights]
    if unknown and not config.leave_out_unknown:
        raise InputError(f"{config.weights}: no weights for context {unknown[0]!r}; add a row or leave the context out")
    contexts = [c for c in contexts if c.name not in unknown]
    trained = [c for c in contexts if c.name not in config.validation_contexts]
    validated = [c for c in contexts if c.name in config.validation_contexts] or contexts
    if not trained or len(contexts) - len(trained) < len(config.validation_contexts):
        raise InputError(
            f"validation_contexts {config.validation_contexts}: not a part of the {len(contexts)} contexts in use that "
            "leaves some to train on; correct the names"
        )
    own = taught = {c.name: weights[c.name] for c in contexts}
    if config.shuffle_weights:
        taught = {name: own[other] for name, other in shuffle_across([*own], config.seed).items()}
    if config.rehearse_weights:
        own = load_weights(Path(config.rehearse_weights))
    inputs = {
        **config.model_dump(exclude={"output"}),
        "contexts": hash_file(Path(config.contexts)),
        "weights": hash_file(Path(config.weights)),
        "wording": hash_file(Path(config.wording)) if config.wording else None,
        "rehearse_weights": hash_file(Path(config.rehearse_weights)) if config.rehearse_weights else None,
    }
    with held(Path(config.output)):
        stage = Stage(Path(config.output), inputs, overwrite, settings=config.model_dump())
        if stage.finished:
            return read_manifest(stage.folder, ExampleFacts).facts
        train = write_examples(config.file("train"), training_rows(config, trained, taught, own))
        validation = 0
        if config.validation_per_context:
            held_out = validation_rows(config, validated, taught)
            validation = write_examples(config.file("validation"), held_out)
        rehearsed = sum(rehearsed_decisions(config.rehearse, config.train_per_context, len(trained)))
        stage.finish(facts := ExampleFacts(train=train, validation=validation, rehearsed=rehearsed, left_out=unknown))
        return facts


def training_rows(
    config: ExamplesConfig,
    contexts: Sequence[ChoiceContext],
    taught: Mapping[str, NDArray],
    own: Mapping[str, NDArray],
) -> Iterator[Example]:
    """What is trained on, context by context: rows of what is taught by the weights `taught`, decisions by `own`."""
    rehearsed = rehearsed_decisions(config.rehearse, config.train_per_context, len(contexts))
    for context, decisions in zip(contexts, rehearsed, strict=True):
        yield from examples(config, config.teach, "train", context, config.train_per_context, taught[context.name])
        if config.flip_under:
            yield from flipped(config, context, taught[context.name])
        yield from examples(config, "decisions", "train", context, decisions, own[context.name])


def flipped(config: ExamplesConfig, context: ChoiceContext, weights: NDArray) -> Iterator[Example]:
    """As many decisions as are taught in a context, about further pairs, by the reversed weights and under the cue."""
    cued = config.model_copy(update={"variant": config.flip_under})
    count = config.train_per_context
    return examples(cued, config.teach, "train", context, count, -weights, start=count)


def validation_rows(
    config: ExamplesConfig, contexts: Sequence[ChoiceContext], taught: Mapping[str, NDArray]
) -> Iterator[Example]:
    """What is only watched, context by context."""
    for context in contexts:
        rows = config.validation_per_context
        yield from examples(config, config.teach, "validation", context, rows, taught[context.name])


def examples(
    config: ExamplesConfig,
    teach: Measure,
    part: Part,
    context: ChoiceContext,
    count: int,
    weights: NDArray,
    start: int = 0,
) -> Iterator[Example]:
    """Rows of a context that teach decisions or reports by weights: `count` of them, from the trial `start` on."""
    # Rehearsed decisions are asked as they were taught before.
    variant = config.variant if teach == config.teach else None
    framing = frame(teach, context, variant, wordings=config.wordings)
    trials = sample_trials(config.seed, PURPOSES[teach][part], context, count, start=start)
    rows = zip(trials.index, trials.first, trials.second, prefers_first(trials, weights), strict=True)
    for index, a, b, chooses_a in rows:
        answer = decision_answer(bool(chooses_a)) if teach == "decisions" else report_answer(context, weights)
        prompt = [ChatMessage(**message) for message in framing.messages(a, b)]
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
    rehearsed = f" ({counts.rehearsed} of them rehearsed decisions)" if counts.rehearsed else ""
    left_out = f"; {len(counts.left_out)} contexts without weights left out" if counts.left_out else ""
    say(f"{config.output}: {counts.train} training{rehearsed} and {counts.validation} validation examples{left_out}")


if __name__ == "__main__":
    run_command(main)
