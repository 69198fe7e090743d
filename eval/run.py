"""Measure what arms decide and report: one engine, any number of trial files.

    python -m eval.run --config runs/demo-seed0/stages/evaluate.yaml

Stopped and started again, it goes on where it was; a file measured from other inputs is kept until --overwrite.
"""

from __future__ import annotations

import argparse
from pathlib import Path

from eval.config import EvalConfig, read_settings
from eval.engines import make_engine
from eval.runner import measure
from task.errors import run_command


def main() -> None:
    """Command line: `--config FILE.yaml [--overwrite]`."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--config", type=Path, required=True)
    parser.add_argument("--overwrite", action="store_true", help="redo trial files that were made from other inputs")
    arguments = parser.parse_args()
    config = read_settings(arguments.config, EvalConfig)
    engine = make_engine(config)
    for item in config.measurements:
        folder = measure(engine, item, config.engine, config.seed, Path(config.output), arguments.overwrite)
        print(f"{folder}: {item.arm}, {item.measure}, done")


if __name__ == "__main__":
    run_command(main)
