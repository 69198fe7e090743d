"""Measure what arms decide and report: one engine, any number of trial files.

    python -m eval.run --config runs/demo-seed0/stages/evaluate.yaml
    python -m eval.run --config runs/demo-seed0/stages/evaluate.yaml --processes 4       # one a GPU, joined at the end
    python -m eval.run --config runs/demo-seed0/stages/evaluate.yaml --part 2/4          # one of them by itself
    python -m eval.run --config runs/demo-seed0/stages/evaluate.yaml --part slurm        # ... as a SLURM array says
    python -m eval.run --config runs/demo-seed0/stages/evaluate.yaml --merge             # join what the parts have made
    python -m eval.run --config runs/demo-seed0/stages/evaluate.yaml --begin --overwrite # before parts replace any

Stopped and started again, it goes on where it was; a file measured from other inputs is kept until --overwrite. The
files are the same, byte for byte, however the work is shared.
"""

from __future__ import annotations

import argparse
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

from eval.parts import Progress, parse_part, share_gpus, start_parts, visible_gpus
from eval.runner import Work, evaluate, list_work, merge, open_stage
from eval.variants import open_engine
from store.evaluation import EvalConfig
from store.settings import read_settings
from store.stages import Stage
from store.console import run_command
from task.errors import InputError


def main() -> None:
    """Command line: `--config FILE.yaml [--processes N | --part i/N | --begin | --merge] [--overwrite]`."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--config", type=Path, required=True)
    parser.add_argument("--overwrite", action="store_true", help="redo trial files that were made from other inputs")
    parser.add_argument("--quiet", action="store_true", help="no progress line")
    sharing = parser.add_mutually_exclusive_group()
    sharing.add_argument("--processes", type=int, help="share the trials among so many processes (default: engine's)")
    sharing.add_argument("--part", metavar="i/N", help="answer only the shards of one part, or: slurm")
    sharing.add_argument("--begin", action="store_true", help="open the trial folders; answers nothing")
    sharing.add_argument("--merge", action="store_true", help="join the shards of all parts; answers nothing")
    arguments = parser.parse_args()
    config = read_settings(arguments.config, EvalConfig)
    processes = config.engine.processes if arguments.processes is None else arguments.processes
    if processes < 1:
        raise InputError(f"--processes {processes}: give 1 or more")
    if arguments.overwrite and (arguments.part or arguments.merge):
        raise InputError("--overwrite: parts cannot tell old shards from each other's; give it to --begin, before them")
    if arguments.merge:
        folders = merge(config)
    elif arguments.begin:
        begun = begin(config, list_work(config), arguments.overwrite)
        print(f"{config.output}: {len(begun)} trial files, {sum(stage.finished for stage in begun)} finished")
        return
    elif arguments.part:
        part = parse_part(arguments.part, os.environ)
        evaluate(open_engine(config), config, part=part, quiet=arguments.quiet)
        print(f"part {part} of {config.output}: done; when all are: python -m eval.run --config CONFIG --merge")
        return
    elif processes > 1:
        folders = share(arguments.config, config, processes, arguments.overwrite, arguments.quiet)
    else:
        folders = evaluate(open_engine(config), config, arguments.overwrite, quiet=arguments.quiet)
    for folder in folders:
        print(f"{folder}: done")


def share(path: Path, config: EvalConfig, processes: int, overwrite: bool, quiet: bool) -> list[Path]:
    """Share an evaluation among processes of this machine and join what they make; returns the trial folders.

    Raises:
        InputError: Too few GPUs, other inputs, or a process that failed; the others end their parts first.
    """
    gpus = [] if config.engine.name == "simulated" else visible_gpus(os.environ)
    devices = share_gpus(gpus, processes, config.engine)
    works = list_work(config)
    # Folders are opened here, once, so that the processes find them begun.
    finished = [stage.finished for stage in begin(config, works, overwrite)]
    if all(finished):
        return merge(config)
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(128 + signal.SIGTERM))  # so that the processes are ended, too
    parts = start_parts(["-m", "eval.run", "--config", str(path)], devices)
    try:
        watch(parts, [work for work, done in zip(works, finished, strict=True) if not done], quiet)
    finally:
        for process in parts:
            process.terminate()  # those that still run when this one is interrupted
    if failed := [i for i, process in enumerate(parts, start=1) if process.returncode]:
        raise InputError(f"part {failed[0]}/{processes} failed, see above; the same command goes on from here")
    return merge(config)


def begin(config: EvalConfig, works: list[Work], overwrite: bool) -> list[Stage]:
    """Open the trial folders; with `overwrite`, what other inputs have left in them is replaced."""
    engine = open_engine(config)
    return [open_stage(w, {**w.inputs(), **engine.identity(w.measurement.arm)}, overwrite) for w in works]


def watch(parts: list[subprocess.Popen[bytes]], works: list[Work], quiet: bool) -> None:
    """Show the progress of all parts together, by the shards that are there, until every process has ended."""
    before = _answered(works)
    with Progress(sum(len(work.trials) for work in works), quiet) as progress:
        progress.found(before)
        progress.now(f"{len(parts)} processes")
        while None in [process.poll() for process in parts]:
            time.sleep(0.2)
            now = _answered(works)
            progress.answered(now - before)
            before = now


def _answered(works: list[Work]) -> int:
    return sum(work.rows(work.written()) for work in works)


if __name__ == "__main__":
    run_command(main)
