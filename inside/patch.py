"""Reduce adapters to a few of their matrices, ranked by one task, and see what is left of either (`inside.patching`).

    python -m inside.patch --config runs/inside-seed0/stages/patch.yaml

For each arm, whose rows must have been scored before (`python -m inside.attribute`), it writes
`ARM/patching/patching.parquet`. Stopped and started again, it goes on after the last context. Results from other inputs
are kept until --overwrite.
"""

from __future__ import annotations

import time
from dataclasses import dataclass
from pathlib import Path

from inside.adapted import Adapted
from inside.arms import Arms
from inside.command import parse
from inside.patching import Ranking, divergences, kept_counts, rankings
from store import shards
from store.console import Progress, run_command, say
from store.inside import TASKS, AttributionFacts, PatchConfig, PatchingFacts, Task, patching_folder, scores_folder
from store.inside_inputs import patching_inputs
from store.inside_tables import PATCHING, PATCHING_SCHEMA, Patched, Scores, patching_table, read_scores
from store.locks import held
from store.manifests import read_manifest
from store.settings import read_settings
from store.stages import Stage, begun
from task.contexts import ChoiceContext
from task.errors import InputError


@dataclass
class Patching:
    """The work on one arm: its folder, its scores by task, and its contexts."""

    config: PatchConfig
    arms: Arms
    name: str
    stage: Stage
    scores: dict[Task, Scores]
    contexts: list[ChoiceContext]

    def run(self, progress: Progress) -> None:
        """Fill what is missing of the folder, context by context, and close it."""
        if self.stage.finished:
            progress.found(len(self.contexts))
            return
        with self.arms.loaded(self.name) as model:
            where = str(scores_folder(Path(self.config.output), self.name, "deciding"))
            orders = rankings(model.matrices, self.scores, self.config.random, self.config.seed, where)
            counts = kept_counts(len(model.matrices))
            rows = len(orders) * len(counts)
            for number, context in enumerate(self.contexts):
                progress.now(f"{self.name} {context.name}")
                if shards.has_shard(self.stage.folder, number, rows, 2 * rows):
                    progress.found(1)
                    continue
                self.patch(model, number, orders, counts)
                progress.advance(1)
            self.finish(len(model.matrices), rows)

    def patch(self, model: Adapted, number: int, orders: list[Ranking], counts: list[int]) -> None:
        """Measure one context in both tasks, and write it; reports are left out where none can be read."""
        started, context = time.perf_counter(), self.contexts[number]
        found: list[Patched] = []
        noted: dict[str, float] = {}
        for task in TASKS:
            answers = self.arms.answers(model, task, context)
            noted["unreadable"] = self.config.prompts - len(answers)
            if not answers:
                continue
            cases = [(by, draw, k, frozenset(order[:k])) for by, draw, order in orders for k in counts]
            kept = [frozenset[int](), *(places for *_, places in cases)]
            backbone, *kls = divergences(model, answers, kept, self.config.batch_size)
            for (by, draw, k, _), kl in zip(cases, kls, strict=True):
                found.append(Patched(task, by, draw, k, context.name, kl, backbone))
        noted["seconds"] = round(time.perf_counter() - started, 3)
        shards.write_shard(self.stage.folder, number, patching_table(found), noted)

    def finish(self, matrices: int, rows: int) -> None:
        """Join the contexts and write the manifest; `rows` are those of one task in a context."""
        folder = self.stage.folder
        left_out = [c.name for n, c in enumerate(self.contexts) if shards.shard_rows(folder, n) == rows]
        noted = shards.join_shards(folder, len(self.contexts), PATCHING, PATCHING_SCHEMA)
        self.stage.finish(
            PatchingFacts(
                contexts=len(self.contexts),
                left_out=left_out,
                matrices=matrices,
                unreadable=int(noted["unreadable"]),
                seconds=round(noted["seconds"], 3),
            )
        )
        shards.remove_shards(folder)


def read_tasks(inside: Path, arm: str) -> dict[Task, Scores]:
    """The scores of an arm in each task; a task in which no report could be read has none.

    Raises:
        InputError: The arm has not been attributed.
    """
    found: dict[Task, Scores] = {}
    for task in TASKS:
        folder = scores_folder(inside, arm, task)
        if begun(folder) != "finished":
            raise InputError(f"{folder}: no finished scores, by which matrices are ranked; run inside.attribute first")
        if read_manifest(folder, AttributionFacts).facts.contexts:
            found[task] = read_scores(folder)
    return found


def patch_arms(config: PatchConfig, overwrite: bool = False, quiet: bool = False) -> None:
    """Patch all arms of a configuration.

    Raises:
        InputError: An arm has no scores, a folder holds results that were made from other inputs, an adapter is none of
            the base model, or another process works there.
    """
    arms, inside = Arms(config), Path(config.output)
    with held(inside):
        works = []
        for name, arm in config.arms.items():
            scores = read_tasks(inside, name)
            inputs = patching_inputs(config, name) | arms.identity
            stage = Stage(patching_folder(inside, name), inputs, overwrite)
            works.append(Patching(config, arms, name, stage, scores, arm.load()))
        with Progress(sum(len(work.contexts) for work in works), "context", quiet) as progress:
            for work in works:
                work.run(progress)


def main() -> None:
    """Command line: `--config FILE.yaml [--overwrite] [--quiet]`."""
    arguments = parse(__doc__)
    config = read_settings(arguments.config, PatchConfig)
    patch_arms(config, arguments.overwrite, arguments.quiet)
    if not arguments.quiet:
        say(f"{config.output}: {len(config.arms)} arms patched")


if __name__ == "__main__":
    run_command(main)
