"""The command line of attribution and patching."""

from __future__ import annotations

import argparse
from pathlib import Path


def parse(doc: str | None) -> argparse.Namespace:
    """`config`, `overwrite` and `quiet` of a command with this docstring."""
    parser = argparse.ArgumentParser(description=doc, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--config", type=Path, required=True)
    parser.add_argument("--overwrite", action="store_true", help="redo folders that were made from other inputs")
    parser.add_argument("--quiet", action="store_true", help="say nothing but what goes wrong")
    return parser.parse_args()
