"""What a further question is asked of: a run, or one model's released files."""

from __future__ import annotations

import argparse
from pathlib import Path

from analysis.study.output import check_replaceable
from analysis.study.released_results import read_released
from analysis.study.results import Findings, analyse
from task.errors import InputError


def add_subject(parser: argparse.ArgumentParser, folder: str) -> None:
    """Options `--run`, or `--data`, `--model` and `--out`; `folder` of a run is what is written by default."""
    source = parser.add_mutually_exclusive_group(required=True)
    source.add_argument("--run", type=Path, help="run folder, e.g. runs/demo-seed0")
    source.add_argument("--data", type=Path, help="folder with the paper's released files")
    parser.add_argument("--model", help="with --data: name of the model, or the beginning of just one name")
    parser.add_argument("--out", type=Path, help=f"folder to write (default: {folder}, in the run's folder)")


def read_subject(options: argparse.Namespace, folder: str, command: str) -> tuple[Findings, Path]:
    """Analyse what the options of `add_subject` name; returns also the folder to write.

    Raises:
        InputError: Options are missing, the folder to write is not an earlier output of `command`, or the files are
            missing or of another form.
    """
    if options.data and not (options.model and options.out):
        raise InputError("--data needs --model and --out: whose files, and the folder to write")
    out = options.out or options.run / folder
    check_replaceable(out, command)
    return (analyse(options.run) if options.run else read_released(options.data, options.model)), out
