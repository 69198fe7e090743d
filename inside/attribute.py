"""Score the rows of adapters by what they do for deciding and for reporting (`inside.attribution`).

    python -m inside.attribute --config runs/inside-seed0/stages/attribute.yaml

For each arm it writes `ARM/deciding/scores.parquet` and `ARM/reporting/scores.parquet`. For random adapters of its
shapes it writes the same, in `ARM/random_1/deciding/` and so on. They are asked about the very answers of the arm, so
that one that cannot report has scores, too; what they are held against is the random adapter in full.

Stopped and started again, it goes on after the last context, a task an adapter. Scores from other inputs are kept until
--overwrite.
"""

from __future__ import annotations

import time
from dataclasses import dataclass, field
from pathlib import Path

from inside.adapted import Adapted, Factors
from inside.answers import Answer
from inside.arms import Arms
from inside.attribution import attribute
from inside.command import parse
from inside.random_adapters import random_factors
from store import shards
from store.console import Progress, run_command, say
from store.inside import AttributeConfig, AttributionFacts
from store.inside_inputs import ScoresFolder, attribution_folders, attribution_inputs
from store.inside_tables import SCORES, SCORES_SCHEMA, scores_table
from store.locks import held
from store.manifests import read_manifest
from store.settings import read_settings
from store.stages import Stage
from task.contexts import ChoiceContext

ROW_GROUP = 1 << 20
"""Rows of a row group in the file: few and large ones, as a context of a large model has millions of rows."""


@dataclass
class Target:
    """A folder of scores on its way."""

    folder: ScoresFolder
    stage: Stage

    def has(self, number: int, rows: int) -> bool:
        """Whether the scores of a context are there; none where no report of it could be read."""
        return self.stage.finished or shards.has_shard(self.folder.path, number, 0, rows)


@dataclass
class Attributing:
    """The work on one arm: its folders and its contexts."""

    config: AttributeConfig
    arms: Arms
    name: str
    targets: list[Target]
    contexts: list[ChoiceContext]
    factors: dict[int, Factors] = field(default_factory=dict)

    def run(self, progress: Progress) -> None:
        """Fill what is missing of the folders, context by context, and close them."""
        if all(target.stage.finished for target in self.targets):
            progress.found(len(self.targets) * len(self.contexts) * self.config.prompts)
            return
        with self.arms.loaded(self.name) as model:
            for number, context in enumerate(self.contexts):
                progress.now(f"{self.name} {context.name}")
                missing = [target for target in self.targets if not target.has(number, len(model.rows))]
                progress.found((len(self.targets) - len(missing)) * self.config.prompts)
                tasks = sorted({target.folder.task for target in missing})
                answers = {task: self.arms.answers(model, task, context) for task in tasks}
                for target in missing:
                    self.score(model, target, number, answers[target.folder.task])
                    progress.advance(self.config.prompts)
        self.factors.clear()
        for target in self.targets:
            self.finish(target)

    def score(self, model: Adapted, target: Target, number: int, answers: list[Answer]) -> None:
        """Score one adapter in one task and context, and write it."""
        started, name = time.perf_counter(), self.contexts[number].name
        model.become(self.of_draw(model, target.folder.draw))
        table = SCORES_SCHEMA.empty_table()
        noted: dict[str, float] = {"unreadable": self.config.prompts - len(answers), "prompts": len(answers)}
        if answers:
            found = attribute(model, answers, self.config.steps, self.config.batch_size)
            table, scored = scores_table(name, model.rows, found.values), float(found.values.sum())
            noted |= {"change": found.change * len(answers), "scored": scored * len(answers)}
            noted |= {"off": abs(scored - found.change), "size": abs(found.change)}
        noted["seconds"] = round(time.perf_counter() - started, 3)
        shards.write_shard(target.folder.path, number, table, noted)

    def of_draw(self, model: Adapted, draw: int) -> Factors:
        """The arm's own factors, or those of a random adapter, which are drawn once."""
        if draw not in self.factors:
            own = draw == 0
            self.factors[draw] = model.own if own else random_factors(model, self.config.seed, self.name, draw)
        return self.factors[draw]

    def finish(self, target: Target) -> None:
        """Join the contexts of a folder and write its manifest."""
        path = target.folder.path
        if not target.stage.finished:
            empty = [c.name for n, c in enumerate(self.contexts) if not shards.shard_rows(path, n)]
            noted = shards.join_shards(path, len(self.contexts), SCORES, SCORES_SCHEMA, ROW_GROUP)
            target.stage.finish(
                AttributionFacts(
                    contexts=len(self.contexts) - len(empty),
                    left_out=empty,
                    prompts=int(noted["prompts"]),
                    unreadable=int(noted["unreadable"]),
                    steps=self.config.steps,
                    change=noted["change"] / max(noted["prompts"], 1),
                    scored=noted["scored"] / max(noted["prompts"], 1),
                    relative_error=noted["off"] / noted["size"] if noted["size"] else None,
                    seconds=round(noted["seconds"], 3),
                )
            )
        shards.remove_shards(path)


def attribute_arms(config: AttributeConfig, overwrite: bool = False, quiet: bool = False) -> None:
    """Attribute all arms of a configuration.

    Raises:
        InputError: A folder holds scores that were made from other inputs, an adapter is none of the base model, or
            another process works there.
    """
    arms = Arms(config)
    works = []
    with held(Path(config.output)):
        for name, arm in config.arms.items():
            targets = [
                Target(found, Stage(found.path, attribution_inputs(config, found) | arms.identity, overwrite))
                for found in attribution_folders(config)
                if found.arm == name
            ]
            works.append(Attributing(config, arms, name, targets, arm.load()))
        total = sum(len(work.targets) * len(work.contexts) for work in works) * config.prompts
        with Progress(total, "prompt", quiet) as progress:
            for work in works:
                work.run(progress)


def main() -> None:
    """Command line: `--config FILE.yaml [--overwrite] [--quiet]`."""
    arguments = parse(__doc__)
    config = read_settings(arguments.config, AttributeConfig)
    attribute_arms(config, arguments.overwrite, arguments.quiet)
    facts = [read_manifest(found.path, AttributionFacts).facts for found in attribution_folders(config)]
    errors = [fact.relative_error for fact in facts if fact.relative_error is not None]
    unreadable = sum(fact.unreadable for fact in facts)
    if not arguments.quiet:
        off = f"sums of scores off by at most {max(errors):.1%}" if errors else "no adapter changes an answer"
        say(f"{config.output}: scores in {len(facts)} files, {off}; {unreadable} reports could not be read")


if __name__ == "__main__":
    run_command(main)
