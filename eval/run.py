"""Measure what arms decide and report: one engine, any number of trial files.

    python -m eval.run --config runs/demo-seed0/stages/evaluate.yaml
    python -m eval.run --config runs/demo-seed0/stages/evaluate.yaml --processes 4       # one a GPU, joined at the end
    python -m eval.run --config runs/demo-seed0/stages/evaluate.yaml --part 2/4          # one of them by itself
    python -m eval.run --config runs/demo-seed0/stages/evaluate.yaml --part slurm        # ... as a SLURM array says
    python -m eval.run --config runs/demo-seed0/stages/evaluate.yaml --merge             # join what the parts have made
    python -m eval.run --config runs/demo-seed0/stages/evaluate.yaml --begin --overwrite # before parts replace any

Stopped and started again, it goes on where it was; a file measured from other inputs is kept until --overwrite. The
files are the same however the work is shared; byte for byte on a CPU, up to the last digits on a GPU.
"""

from __future__ import annotations

import argparse
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

from eval.engines import make_engine
from eval.parts import parse_part, share_gpus, start_parts, visible_gpus
from eval.runner import evaluate, merge, open_stage
from eval.work import Work, list_work
from store.console import Progress, run_command, say
from store.evaluation import EvalConfig
from store.locks import held
from store.manifests import DecisionFacts, ReportFacts, read_manifest
from store.processes import stoppable
from store.settings import read_settings
from store.stages import Stage
from task.errors import InputError


def main() -> None:
    """Command line: `--config FILE.yaml [--processes N | --part i/N | --begin | --merge] [--overwrite]`."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--config", type=Path, required=True)
    parser.add_argument("--overwrite", action="store_true", help="redo trial files that were made from other inputs")
    parser.add_argument("--quiet", action="store_true", help="say nothing but what goes wrong")
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
    if arguments.begin:
        begun = begin(config, list_work(config), arguments.overwrite)
        result = f"{config.output}: {len(begun)} trial files, {sum(stage.finished for stage in begun)} finished"
    elif arguments.part:
        part = parse_part(arguments.part, os.environ)
        evaluate(make_engine(config), config, part=part, quiet=arguments.quiet)
        result = f"part {part} of {config.output}: done; when all are: python -m eval.run --config CONFIG --merge"
    else:
        if arguments.merge:
            merge(config)
        elif processes > 1:
            share(arguments.config, config, processes, arguments.overwrite, arguments.quiet)
        else:
            evaluate(make_engine(config), config, arguments.overwrite, quiet=arguments.quiet)
        result = summary(config, shared=arguments.merge or processes > 1)
    if not arguments.quiet:
        say(result)


def summary(config: EvalConfig, shared: bool) -> str:
    """What a finished evaluation has made, and how fast one process answers, in one line."""
    rows, seconds = 0, 0.0
    for measurement in config.measurements:
        decided = measurement.measure == "decisions"
        kind: type[DecisionFacts] | type[ReportFacts] = DecisionFacts if decided else ReportFacts
        facts = read_manifest(config.folder_of(measurement), kind).facts
        rows, seconds = rows + facts.rows, seconds + facts.answering.seconds
    files = f"{len(config.measurements)} file{'s' * (len(config.measurements) != 1)}"
    return f"{rows:,} trials in {files}, {rows / seconds:,.0f} a second{' in each process' * shared}"


def share(path: Path, config: EvalConfig, processes: int, overwrite: bool, quiet: bool) -> None:
    """Share an evaluation among processes of this machine and join what they make, unless one of them failed."""
    gpus = [] if config.engine.name == "simulated" else visible_gpus(os.environ)
    devices = share_gpus(gpus, processes, config.engine)
    works = list_work(config)
    with held(Path(config.output)) as lock:
        # Folders are opened here, once, so that the processes find them begun.
        finished = [stage.finished for stage in begin(config, works, overwrite)]
        if not all(finished):
            lock.share()
            with stoppable():
                parts = start_parts(["-m", "eval.run", "--config", str(path)], devices)
                try:
                    watch(parts, [work for work, done in zip(works, finished, strict=True) if not done], quiet)
                finally:
                    for process in parts:
                        process.terminate()  # those that still run when this one is interrupted
            check_ended([process.wait() for process in parts])
            lock.exclude()
        merge(config)


def check_ended(statuses: list[int]) -> None:
    """End this process, too, if a part has failed; one that ended with status 2 has said why by itself."""
    if failed := [(i, status) for i, status in enumerate(statuses, start=1) if status]:
        number, status = failed[0]
        part = f"part {number}/{len(statuses)}"
        if 2 in statuses:
            sys.exit(2)
        if status < 0:
            raise InputError(f"{part} was killed ({signal.Signals(-status).name}); the same command goes on from there")
        raise InputError(f"{part} ended with status {status}; what it says above is the cause, mend it")


def begin(config: EvalConfig, works: list[Work], overwrite: bool) -> list[Stage]:
    """Open the trial folders; with `overwrite`, what other inputs have left in them is replaced."""
    engine = make_engine(config)
    with held(Path(config.output)):
        return [open_stage(work, engine, overwrite) for work in works]


def watch(parts: list[subprocess.Popen[bytes]], works: list[Work], quiet: bool) -> None:
    """Show the progress of all parts together, by the shards that are there, until every process has ended."""
    before = sum(work.answered() for work in works)
    with Progress(sum(work.total for work in works), "trial", quiet) as progress:
        progress.found(before)
        progress.now(f"{len(parts)} processes")
        while None in [process.poll() for process in parts]:
            time.sleep(0.2)
            now = sum(work.answered() for work in works)
            progress.advance(now - before)
            before = now


if __name__ == "__main__":
    run_command(main)
