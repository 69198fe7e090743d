"""Check a GPU in about ten minutes, before hours are spent on it; or its twin on a CPU, in one.

    python -m scripts.check_gpu --out results/gpu/mine.json      # or: make check-gpu
    python -m scripts.check_gpu --device cpu                     # the twin: the same lines, smaller
    python -m scripts.check_gpu --only memory speed              # some lines

Each line is passed, failed (with its remedy) or skipped (with why). The exit status is 1 where a line failed. A line
that breaks off or takes three times its time is a failed line, and the others go on. No line needs the network.
"""

from __future__ import annotations

import argparse
import sys

try:
    from scripts.check_gpu.run import run
    from store.console import run_command
except ImportError as error:
    sys.exit(f"error: {error}; install it, or carry it here: python -m scripts.collect_wheels, where it is installed")


def main() -> None:
    """Command line: `[--device cuda|cpu] [--only LINE ...] [--out FILE]`."""
    from pathlib import Path

    from scripts.check_gpu.lines import CHECKS

    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--device", choices=("cuda", "cpu"), default="cuda", help="what to check (default: cuda)")
    names = [check.name for check in CHECKS]
    parser.add_argument("--only", nargs="+", choices=names, metavar="LINE", help=f"of {', '.join(names)}")
    parser.add_argument("--out", type=Path, help="JSON file to write")
    asked = parser.parse_args()
    record = run(asked.device, asked.only, asked.out)
    sys.exit(1 if record.failed else 0)


if __name__ == "__main__":
    run_command(main)
