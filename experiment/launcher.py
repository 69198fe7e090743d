"""Run an experiment from its file to its report.

    python scripts/run_experiment.py configs/experiments/simulated.yaml
    python scripts/run_experiment.py configs/experiments/demo.yaml --dry-run
    python scripts/run_experiment.py configs/experiments/demo.yaml --overwrite instilled.sft evaluate
    python scripts/run_experiment.py configs/experiments/demo.yaml --launcher slurm --site configs/slurm/site.yaml
    python scripts/run_experiment.py configs/experiments/demo.yaml --status

Each seed is a run of its own in `runs/<name>-seed<k>`. Stopped at any moment and started again, it goes on; a stage
whose inputs changed refuses to overwrite what was made from the old ones until it is named after --overwrite.
"""

from __future__ import annotations

import argparse
import json
import shlex
import subprocess
import sys
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import yaml
from rich.console import Console
from rich.table import Table

from experiment.capacity import memory_lines, serving_lines
from experiment.file import Experiment, dump_yaml, load_experiment, load_groups
from store.model_file import ModelFile, load_model_file
from experiment.plan import TOLD_WEIGHTS, PlannedStage, Run, command, config_path, plan, run_record
from experiment.slurm.chain import chain, sbatch_command, still_queued, submit
from experiment.slurm.site import Site
from experiment.status import show_status
from experiment.tokens import token_counter
from store.contexts import save_contexts
from store.evaluation import EngineSettings
from store.files import read_json, write_json, write_text
from store.settings import read_settings
from store.stages import MANIFEST, STARTED, Stage, differences
from store.weights import save_weights
from task.contexts import ChoiceContext
from store.console import run_command
from task.errors import InputError
from task.weights import sample_weights

CONSOLE = Console(highlight=False)

SITE = Path("configs/slurm/site.yaml")

NO_RESULT = ("processes", "max_prompt_tokens", "max_reply_tokens")
"""Engine settings that no answer depends on; they may change between two starts of a run."""


def main() -> None:
    """Parse the command line; plan each run, and show it, run it here or submit it."""
    arguments = parse_arguments()
    experiment = load_experiment(arguments.experiment)
    site = read_settings(arguments.site, Site) if arguments.launcher == "slurm" else None
    model, groups = load_model_file(experiment), load_groups(experiment)
    runs = [make_run(experiment, model, groups, seed, arguments.runs) for seed in experiment.seeds]
    queued: list[str] = []
    for run in runs:
        stages = plan_or_explain(run, arguments.experiment)
        check_overwrite(stages, arguments.overwrite)
        if arguments.status:
            show_status(run, stages, CONSOLE)
        elif arguments.dry_run:
            show_plan(run, stages)
            if site:
                show_chain(run, stages, site, arguments)
        elif reason := still_queued(run, must_know=site is not None):
            queued.append(reason)  # the other seeds are started all the same
        else:
            check_settings(stages)
            check_unchanged(run, stages, arguments.overwrite)
            prepare(run, stages, "all" in arguments.overwrite)
            if site:
                submit_chain(run, stages, site, arguments)
            else:
                execute(run, stages, arguments.accelerate or default_accelerate(), arguments.overwrite)
    if queued:
        raise InputError("; ".join(queued))
    if not (arguments.dry_run or arguments.status or site):
        show_results(runs)


def parse_arguments() -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("experiment", type=Path, help="file of configs/experiments/")
    parser.add_argument("--runs", type=Path, default=Path("runs"), help="folder of all runs (default: runs)")
    parser.add_argument("--overwrite", nargs="+", default=[], metavar="STAGE", help="stages to redo, or: all")
    parser.add_argument("--accelerate", type=Path, help="file of configs/accelerate/ (default: by hardware)")
    parser.add_argument("--launcher", choices=("local", "slurm"), default="local", help="run here, or submit jobs")
    parser.add_argument("--site", type=Path, default=SITE, help=f"what SLURM jobs ask for (default: {SITE})")
    looking = parser.add_mutually_exclusive_group()
    looking.add_argument("--dry-run", action="store_true", help="list the stages and their sizes, do nothing")
    looking.add_argument("--status", action="store_true", help="say where each stage stands, do nothing")
    return parser.parse_args()


def make_run(
    experiment: Experiment, model: ModelFile | None, groups: dict[str, list[ChoiceContext]], seed: int, root: Path
) -> Run:
    """The run of an experiment with one seed, in its folder under `root`."""
    folder = root / f"{experiment.name}-seed{seed}"
    return Run(experiment, model, groups, seed, folder, token_counter(model, experiment.engine, seed))


def plan_or_explain(run: Run, path: Path) -> list[PlannedStage]:
    """The stages of a run; what cannot be planned is named with the experiment's file."""
    try:
        return plan(run)
    except ValueError as error:
        raise InputError(f"{path}: {error}") from None


def show_plan(run: Run, stages: list[PlannedStage]) -> None:
    """Print the stages of a run with their sizes."""
    CONSOLE.print(f"[bold]{run.folder}", soft_wrap=True)
    table = Table(box=None, padding=(0, 2, 0, 0))
    for column, justify in (("stage", "left"), ("size", "left"), ("tokens", "right"), ("unique", "right")):
        table.add_column(column, justify=justify)  # type: ignore[arg-type]
    for stage in stages:
        table.add_row(stage.name, stage.size, *(f"{n:,}" if n else "" for n in (stage.tokens, stage.unique)))
    table.add_row("together", "", f"{sum(s.tokens for s in stages):,}")
    CONSOLE.print(table)
    for stage in stages:
        if stage.notes:
            CONSOLE.print(f"{stage.name}: {stage.notes}", soft_wrap=True)
    if run.model and run.experiment.model:
        for line in memory_lines(Path(run.experiment.model).stem, run.model):
            CONSOLE.print(f"  training {line}", soft_wrap=True)
        [engine] = [EngineSettings.model_validate(s.config["engine"]) for s in stages if s.kind == "evaluate"]
        for line in serving_lines(Path(run.experiment.model).stem, run.model, engine):
            CONSOLE.print(f"  {line}", soft_wrap=True)


def show_chain(run: Run, stages: list[PlannedStage], site: Site, arguments: argparse.Namespace) -> None:
    """Print the commands that would submit what a run still needs; jobs have names for ids."""
    jobs = chain(run, stages, site, arguments.accelerate or site.train.launch_file, arguments.overwrite)
    for job in jobs:
        command = sbatch_command(run, job, site, {name: f"JOB({name})" for name in job.after})
        CONSOLE.print(shlex.join(command), soft_wrap=True)


def submit_chain(run: Run, stages: list[PlannedStage], site: Site, arguments: argparse.Namespace) -> None:
    """Submit what a run still needs, and print the ids."""
    jobs = chain(run, stages, site, arguments.accelerate or site.train.launch_file, arguments.overwrite)
    CONSOLE.print(f"[bold]{run.folder}", soft_wrap=True)
    if not jobs:
        CONSOLE.print("every stage has finished, nothing to submit")
        return
    ids = submit(run, jobs, site)
    table = Table(box=None, padding=(0, 2, 0, 0))
    for column in ("job", "does", "starts after"):
        table.add_column(column, overflow="fold")
    for job in jobs:
        name = f"{job.name} ({job.parts} parts)" if job.parts else job.name
        table.add_row(ids[job.name], name, " ".join(ids[other] for other in job.after))
    CONSOLE.print(table)
    CONSOLE.print("the same command with --status says where it stands; logs are in logs/", soft_wrap=True)


def check_overwrite(stages: list[PlannedStage], overwrite: list[str]) -> None:
    """Refuse names after --overwrite that are no stage."""
    names = [s.name for s in stages]
    if unknown := [name for name in overwrite if name not in (*names, "all")]:
        raise InputError(f"--overwrite {unknown[0]}: no such stage; stages: {', '.join(names)}")


def check_settings(stages: list[PlannedStage]) -> None:
    """Refuse unknown training settings before the first stage starts, not when its turn comes hours later."""
    configs = [stage.config for stage in stages if stage.kind == "sft"]
    if not configs:
        return
    from train.sft import known_arguments  # loads torch and TRL, which a simulation does not need

    known = {"env", *known_arguments()}
    for config in configs:
        if unknown := [key for key in config if key not in known]:
            raise InputError(f"sft: unknown setting {unknown[0]!r}; see: python train/sft.py --help")


def check_unchanged(run: Run, stages: list[PlannedStage], overwrite: list[str]) -> None:
    """Refuse to go on if a stage that has begun was configured otherwise; nothing is written then.

    Measurements and arms may be added to an evaluation; each of its trial files is checked by itself when measured.
    """
    for stage in stages:
        path = config_path(run, stage)
        begun = any((stage.output / name).exists() for name in (MANIFEST, STARTED)) or stage.kind == "evaluate"
        if not begun or not path.is_file() or {stage.name, "all"} & {*overwrite}:
            continue
        old, new = yaml.safe_load(path.read_text(encoding="utf-8")), json.loads(json.dumps(stage.config))
        if stage.kind == "evaluate":
            old, new = _common_measurements(old, new)
        for config in (old, new):
            config.pop("env", None)  # where curves go
        if changes := differences(old, new):
            raise InputError(
                f"stage {stage.name} of {run.folder} was made from other settings: {'; '.join(changes[:3])}. "
                f"Redo it with --overwrite {stage.name}, or give the experiment another name"
            )


def _common_measurements(*configs: Mapping[str, Any]) -> list[dict[str, Any]]:
    """Evaluation configurations reduced to the arms and trial files that both name."""
    keyed = [{f"{m['arm']}/{m['measure']}/{m.get('variant')}": m for m in c["measurements"]} for c in configs]
    files = set(keyed[0]) & set(keyed[1])
    arms = set(configs[0]["arms"]) & set(configs[1]["arms"])
    reduced = []
    for config, measurements in zip(configs, keyed, strict=True):
        added = ("measurements", "arms", "planted", "told_weights")
        kept = {key: value for key, value in config.items() if key not in added}
        kept["engine"] = {key: value for key, value in config["engine"].items() if key not in NO_RESULT}
        kept["measurements"] = {name: measurements[name] for name in sorted(files)}
        kept["arms"] = {arm: config["arms"][arm] for arm in sorted(arms)}
        reduced.append(kept)
    return reduced


def prepare(run: Run, stages: list[PlannedStage], overwrite: bool) -> None:
    """Write what the stages read: contexts and weights (once), the configuration of each stage, `run.json`."""
    targets = run.groups[run.experiment.target_contexts]
    others = [c for name, group in run.groups.items() if name != run.experiment.target_contexts for c in group]
    target_weights = {c.name: sample_weights(run.seed, "target_weights", c) for c in targets}
    inputs = {
        "seed": run.seed,
        "contexts": {name: [repr(c) for c in contexts] for name, contexts in run.groups.items()},
        "targets": run.experiment.target_contexts,
    }
    stage = Stage(run.inputs, inputs, overwrite)
    if not stage.finished:
        for name, contexts in run.groups.items():
            save_contexts(contexts, run.inputs / f"{name}.jsonl")
        save_weights(target_weights, run.inputs / "target_weights.csv")
        if run.experiment.engine.name == "simulated":
            native = {c.name: sample_weights(run.seed, "native_weights", c) for c in others}
            save_weights({**target_weights, **native}, run.inputs / "planted_weights.csv")
        stage.finish({"counts": {name: len(contexts) for name, contexts in run.groups.items()}})
    if any("told_weights" in planned.config for planned in stages):
        random = {c.name: sample_weights(run.seed, "told_weights", c) for c in others}
        save_weights({**target_weights, **random}, run.inputs / TOLD_WEIGHTS)
    (run.folder / "stages").mkdir(exist_ok=True)
    for planned in stages:
        if planned.config:
            write_text(config_path(run, planned), dump_yaml(planned.config))
    record, path = json.loads(json.dumps(run_record(run))), run.folder / "run.json"
    if not path.is_file() or read_json(path) != record:  # its age says which analyses are older than the experiment
        write_json(path, record)


def execute(run: Run, stages: list[PlannedStage], accelerate: Path, overwrite: list[str]) -> None:
    """Run the stages in order; the first that fails ends the run with its own message."""
    CONSOLE.rule(f"[bold]{run.folder}")
    for number, stage in enumerate(stages, start=1):
        started = time.monotonic()
        CONSOLE.print(f"[bold][{number}/{len(stages)}] {stage.name}[/bold]: {stage.size}", soft_wrap=True)
        sys.stdout.flush()
        redo = bool({stage.name, "all"} & {*overwrite})
        status = subprocess.run(command(stage, run, accelerate, redo)).returncode
        if status:
            raise InputError(f"stage {stage.name} ended with status {status}; the same command goes on from here")
        CONSOLE.print(f"    {time.monotonic() - started:.0f} s")


def default_accelerate() -> Path:
    """The launch configuration for this machine: one process on a GPU if there is one, on the CPU otherwise."""
    import torch  # slow to load, and not needed for a dry run

    return Path("configs/accelerate") / ("single_gpu.yaml" if torch.cuda.is_available() else "cpu.yaml")


def show_results(runs: list[Run]) -> None:
    """Name the files worth opening."""
    CONSOLE.rule("[bold]done")
    for run in runs:
        for name, gloss in (
            ("analysis/report.html", "everything on one page: open this"),
            ("analysis/summary.json", "the figures, for machines"),
            ("analysis/figures", "the pictures"),
            ("trials", "every trial, with the raw replies"),
        ):
            CONSOLE.print(f"  {run.folder / name}  ({gloss})", soft_wrap=True)


if __name__ == "__main__":
    run_command(main)
