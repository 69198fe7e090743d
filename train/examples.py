"""Write what a model learns from: decisions that follow target weights, or reports that state them.

    python -m train.examples --config runs/demo-seed0/stages/instilled.examples.yaml

A row is `{"messages": [system, user, assistant], "context": ..., "index": ...}`, so the files can be read by any
fine-tuning tool, and rows of other origin (the paper's released ones too) train the same way.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Iterator
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any, Literal

import yaml
from numpy.typing import NDArray

from store.contexts import load_named_contexts
from store.files import hash_file, read_json, write_text
from store.stages import MANIFEST, Stage
from store.weights import load_weights
from task.contexts import ChoiceContext
from store.console import run_command
from task.errors import InputError
from task.prompts import decision_answer, messages, report_answer
from task.trials import Purpose, prefers_first, sample_trials
from task.weights import shuffle_across

Part = Literal["train", "validation"]
PURPOSES: dict[tuple[str, Part], Purpose] = {
    ("decisions", "train"): "train_decisions",
    ("decisions", "validation"): "validate_decisions",
    ("reports", "train"): "train_reports",
    ("reports", "validation"): "validate_reports",
}


@dataclass(frozen=True)
class ExamplesConfig:
    """What to write.

    Attributes:
        contexts: Contexts file.
        weights: CSV of weights by context: what is taught, or what is reported.
        teach: `decisions` (choices of higher utility) or `reports` (the weights themselves).
        output: Folder for `train.jsonl` and `validation.jsonl`.
        seed: Seed of the trials.
        train_per_context, validation_per_context: Trials of each context in the two files.
        only: Names of the contexts to use; all of the file when None.
        shuffle_weights: Give each context the weights of another one (the shuffled-label control).
    """

    contexts: str
    weights: str
    teach: Literal["decisions", "reports"]
    output: str
    seed: int
    train_per_context: int
    validation_per_context: int
    only: list[str] | None = None
    shuffle_weights: bool = False


def example_rows(
    config: ExamplesConfig, part: Part, contexts: list[ChoiceContext], weights: dict[str, NDArray]
) -> Iterator[dict[str, Any]]:
    """The rows of one part, context by context, each row a dict ready for JSON."""
    count = config.train_per_context if part == "train" else config.validation_per_context
    for context in contexts:
        taught = weights[context.name]
        trials = sample_trials(config.seed, PURPOSES[config.teach, part], context, count)
        for index, a, b, chooses_a in zip(
            trials.index, trials.first, trials.second, prefers_first(trials, taught), strict=True
        ):
            answer = decision_answer(bool(chooses_a)) if config.teach == "decisions" else report_answer(context, taught)
            prompt = messages(config.teach, context, a, b)
            yield {
                "messages": [*prompt, {"role": "assistant", "content": answer}],
                "context": context.name,
                "index": int(index),
            }


def write_examples(config: ExamplesConfig, overwrite: bool = False) -> dict[str, int]:
    """Write both files and their manifest; returns the number of rows in each.

    Raises:
        InputError: A context has no weights, or a name in `only` is not in the contexts file.
    """
    contexts = load_named_contexts(config.contexts, config.only)
    weights = load_weights(Path(config.weights))
    if missing := [c.name for c in contexts if c.name not in weights]:
        raise InputError(f"{config.weights}: no weights for context {missing[0]!r}; add a row or leave the context out")
    if config.shuffle_weights:
        given = shuffle_across([c.name for c in contexts], config.seed)
        weights = {name: weights[other] for name, other in given.items()}
    inputs = {
        **{k: v for k, v in asdict(config).items() if k not in ("contexts", "weights", "output")},
        "contexts": hash_file(Path(config.contexts)),
        "weights": hash_file(Path(config.weights)),
    }
    stage = Stage(Path(config.output), inputs, overwrite)
    if stage.finished:
        return dict(read_json(stage.folder / MANIFEST)["rows"])
    counts = {}
    for part in ("train", "validation"):
        lines = [json.dumps(row, ensure_ascii=False) for row in example_rows(config, part, contexts, weights)]
        write_text(stage.folder / f"{part}.jsonl", "".join(line + "\n" for line in lines))
        counts[part] = len(lines)
    stage.finish({"rows": counts})
    return counts


def read_config(path: Path) -> ExamplesConfig:
    """Read the YAML file of a configuration; an unknown or missing key is an `InputError`."""
    values = yaml.safe_load(path.read_text(encoding="utf-8"))
    known = [f.name for f in fields(ExamplesConfig)]
    if unknown := [key for key in values if key not in known]:
        raise InputError(f"{path}: unknown key {unknown[0]!r}; allowed keys: {', '.join(known)}")
    try:
        return ExamplesConfig(**values)
    except TypeError as error:
        raise InputError(f"{path}: {error}; needed keys: {', '.join(known)}") from None


def main() -> None:
    """Command line: `--config FILE.yaml [--overwrite]`."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--config", type=Path, required=True)
    parser.add_argument("--overwrite", action="store_true", help="redo it where an earlier result differs")
    arguments = parser.parse_args()
    config = read_config(arguments.config)
    counts = write_examples(config, arguments.overwrite)
    print(f"{config.output}: {counts['train']} training and {counts['validation']} validation examples")


if __name__ == "__main__":
    run_command(main)
