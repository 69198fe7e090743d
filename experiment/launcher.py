"""Run an experiment from its file to its report.

    python scripts/run_experiment.py configs/experiments/simulated.yaml
    python scripts/run_experiment.py configs/experiments/demo.yaml --dry-run
    python scripts/run_experiment.py configs/experiments/demo.yaml --overwrite instilled.sft evaluate
    python scripts/run_experiment.py configs/experiments/demo.yaml --only instilled.examples instilled.sft
    python scripts/run_experiment.py configs/experiments/demo.yaml --launcher slurm --site configs/slurm/site.yaml
    python scripts/run_experiment.py configs/experiments/demo.yaml --status

Each seed is a run of its own in `runs/<name>-seed<k>`. Stopped at any moment and started again, it goes on; a stage
whose inputs changed refuses to overwrite what was made from the old ones until it is named after --overwrite.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from rich.console import Console
from rich.markup import escape

from experiment.file import load_experiment, load_groups
from experiment.plan import Run
from experiment.planned import PlannedStage
from experiment.prepare import check_settings, prepare
from experiment.show import show_chain, show_plan, show_results, show_status
from experiment.slurm.chain import chain
from experiment.slurm.site import Site
from experiment.slurm.submit import still_queued, submit_and_show
from experiment.stage import Options, batches, default_accelerate, run_stage
from experiment.templates import chat_template_line
from experiment.tokens import token_counter
from store.locks import held
from store.model_file import read_model_file
from store.paths import project_file
from store.run import RunFolder
from store.settings import read_settings
from store.state import StageState, stage_state
from store.wordings import read_wordings
from task.errors import InputError

CONSOLE = Console(highlight=False)

SITE = Path("configs/slurm/site.yaml")

MADE_ANEW = ("analyse", "track")
"""Stages that replace their earlier result without being asked to: they take seconds and lose nothing."""


def main() -> None:
    """Parse the command line; plan each run, and show it, run it here or submit it."""
    arguments = parse_arguments()
    site = read_settings(project_file(str(arguments.site)), Site) if arguments.launcher == "slurm" else None
    queued: list[str] = []
    runs = plan_runs(arguments.experiment, arguments.runs)
    for run in runs:
        check_names(run, "--overwrite", arguments.overwrite)
        check_names(run, "--only", arguments.only)
        redo = tuple(s.name for s in run.stages) if "all" in arguments.overwrite else tuple(arguments.overwrite)
        launch: Path | None = arguments.accelerate
        if arguments.status:
            show_status(run, CONSOLE)
        elif arguments.dry_run:
            check_settings(run, launch or (site.train.launch_file if site else None))
            show_plan(run, CONSOLE)
            if site:
                show_chain(run, chain(run, site, launch or site.train.launch_file, redo), site, CONSOLE)
        elif reason := still_queued(run.folder, must_know=site is not None):
            queued.append(reason)  # the other seeds are started all the same
        else:
            check_settings(run, launch or (site.train.launch_file if site else None))
            chat_template_line(run)
            with held(run.folder.path):  # two launchers would write their stages' settings over each other
                states = check_unchanged(run, redo)
                prepare(run, "all" in arguments.overwrite)
                if site:
                    submit_and_show(run, chain(run, site, launch or site.train.launch_file, redo), site, CONSOLE)
                else:
                    execute(run, states, Options(launch, redo), arguments.only)
    if queued:
        raise InputError("; ".join(queued))
    if not (arguments.dry_run or arguments.status or site or arguments.only):
        show_results(runs, CONSOLE)


def parse_arguments() -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("experiment", type=Path, help="file of configs/experiments/")
    parser.add_argument("--runs", type=Path, default=Path("runs"), help="folder of all runs (default: runs)")
    parser.add_argument("--overwrite", nargs="+", default=[], metavar="STAGE", help="stages to redo, or: all")
    parser.add_argument("--only", nargs="+", default=[], metavar="STAGE", help="run these stages and no others")
    parser.add_argument("--accelerate", type=Path, help="file of configs/accelerate/ (default: by hardware)")
    parser.add_argument("--launcher", choices=("local", "slurm"), default="local", help="run here, or submit jobs")
    parser.add_argument("--site", type=Path, default=SITE, help=f"what SLURM jobs ask for (default: {SITE})")
    looking = parser.add_mutually_exclusive_group()
    looking.add_argument("--dry-run", action="store_true", help="list the stages and their sizes, do nothing")
    looking.add_argument("--status", action="store_true", help="say where each stage stands, do nothing")
    return parser.parse_args()


def plan_runs(path: Path, root: Path) -> list[Run]:
    """The runs of an experiment file, one a seed, each in its folder under `root`.

    Raises:
        InputError: The file, or one that it names, cannot be used, or no run can be under `root`.
    """
    if not str(root).isprintable():
        raise InputError(f"--runs {str(root)!r}: holds what cannot be printed; give a folder with a plain name")
    if root.exists() and not root.is_dir():
        raise InputError(f"--runs {root}: a file, not a folder; give another place")
    experiment = load_experiment(project_file(str(path)))
    model = read_model_file(project_file(experiment.model)) if experiment.model else None
    groups, wordings = load_groups(experiment), read_wordings(experiment.wording)
    folders = {seed: RunFolder(root / f"{experiment.name}-seed{seed}") for seed in experiment.seeds}
    runs = [
        Run(experiment, model, groups, seed, folder, token_counter(model, experiment.engine, seed, wordings))
        for seed, folder in folders.items()
    ]
    try:
        for run in runs:
            _ = run.stages
    except ValueError as error:
        raise InputError(f"{path}: {error}") from None
    return runs


def check_names(run: Run, option: str, names: list[str]) -> None:
    """Refuse names after an option that are no stage."""
    known = [stage.name for stage in run.stages]
    allowed = {*known, "all"} if option == "--overwrite" else {*known}
    if unknown := [name for name in names if name not in allowed]:
        raise InputError(f"{option} {unknown[0]}: no such stage; stages: {', '.join(known)}")


def check_unchanged(run: Run, redo: tuple[str, ...]) -> dict[str, StageState]:
    """Where every stage stands; a stale one that is not to be redone is refused before anything is written."""
    states = {stage.name: stage_state(run.folder, run.record, stage) for stage in run.stages}
    for stage in run.stages:
        if stage.name not in redo:
            refuse_stale(run, stage, states[stage.name])
    return states


def refuse_stale(run: Run, stage: PlannedStage, state: StageState) -> None:
    """Refuse to go on with a stage that was made from other inputs, unless it is made anew in any case."""
    if state.name == "stale" and stage.kind not in MADE_ANEW:
        raise InputError(
            f"stage {stage.name} of {run.folder.path} was made from other inputs: {state.detail}. "
            f"Redo it with --overwrite {stage.name}, or give the experiment another name"
        )


def execute(run: Run, states: dict[str, StageState], options: Options, only: list[str]) -> None:
    """Run the stages in order; the first that fails ends the run with its own message."""
    CONSOLE.print(f"{run.folder.path}", style="bold", markup=False, soft_wrap=True)
    for line in run.warnings:
        CONSOLE.print(f"warning: {line}", markup=False, soft_wrap=True)
    wanted = {stage.name: stage for stage in run.stages if not only or stage.name in only}
    number = 0
    for batch in batches(wanted, options.overwrite):
        due = []
        for stage in (wanted[name] for name in batch):
            # What an earlier stage has just made decides anew where this one stands.
            state = stage_state(run.folder, run.record, stage) if number else states[stage.name]
            number += 1
            title = f"[bold][{number}/{len(wanted)}] {escape(stage.name)}[/bold]: "
            if state.name == "finished" and stage.name not in options.overwrite:
                CONSOLE.print(f"{title}finished before", soft_wrap=True)
                continue
            if stage.name not in options.overwrite:
                refuse_stale(run, stage, state)
            CONSOLE.print(title + escape(stage.size), soft_wrap=True)
            due.append(stage)
        if not due:
            continue
        sys.stdout.flush()
        if due[0].kind == "sft" and options.accelerate is None:
            options = Options(default_accelerate(), options.overwrite)
        first, *more = (stage.name for stage in due)
        run_stage(run.folder, first, options, CONSOLE, more)
