"""What a further question is asked of: a run, or one model's released files."""

from __future__ import annotations

import argparse
from pathlib import Path

from analysis.study.output import check_replaceable
from analysis.study.released_files import Elsewhere
from analysis.study.released_results import read_released
from analysis.study.results import Findings, analyse
from task.errors import InputError


def add_subject(parser: argparse.ArgumentParser, folder: str) -> None:
    """Options `--run`, or `--data`, `--model` and `--out`; `folder` of a run is what is written by default."""
    source = parser.add_mutually_exclusive_group(required=True)
    source.add_argument("--run", type=Path, help="run folder, e.g. runs/demo-seed0")
    source.add_argument("--data", type=Path, help="folder with the paper's released files")
    parser.add_argument("--model", help="with --data: name of the model, or the beginning of just one name")
    add_elsewhere(parser)
    parser.add_argument("--out", type=Path, help=f"folder to write (default: {folder}, in the run's folder)")


def add_elsewhere(parser: argparse.ArgumentParser) -> None:
    """Options `--contexts`, `--weights` and `--where` of released files, see `released_files.Elsewhere`."""
    parser.add_argument(
        "--contexts", type=Path, help="folder with scenarios.csv, or a file of contexts (default: where the trials are)"
    )
    parser.add_argument(
        "--weights", type=Path, help="file of target weights, or its folder (default: where the trials are)"
    )
    parser.add_argument(
        "--where",
        action="append",
        default=[],
        metavar="COLUMN=VALUE",
        help="use only these trials of files that have the column, e.g. flipped=0; can be given several times",
    )


def read_elsewhere(options: argparse.Namespace) -> Elsewhere:
    """What the options of `add_elsewhere` say.

    Raises:
        InputError: A `--where` that is not `COLUMN=VALUE`, or two of one column.
    """
    where: dict[str, str] = {}
    for text in options.where:
        column, equals, value = (part.strip() for part in text.partition("="))
        if not (column and equals and value) or column in where:
            raise InputError(f"--where {text}: needed: COLUMN=VALUE, e.g. flipped=0, once for each column")
        where[column] = value
    return Elsewhere(options.contexts, options.weights, where)


def read_subject(options: argparse.Namespace, folder: str, command: str) -> tuple[Findings, Path]:
    """Analyse what the options of `add_subject` name; returns also the folder to write.

    Raises:
        InputError: Options are missing, the folder to write is not an earlier output of `command`, or the files are
            missing or of another form.
    """
    if options.data and not (options.model and options.out):
        raise InputError("--data needs --model and --out: whose files, and the folder to write")
    if options.run and (options.contexts or options.weights or options.where):
        raise InputError("--contexts, --weights and --where belong to --data; a run has its own contexts and weights")
    out = options.out or options.run / folder
    check_replaceable(out, command)
    if options.run:
        return analyse(options.run), out
    return read_released(options.data, options.model, read_elsewhere(options)), out
