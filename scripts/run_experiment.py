"""See `experiment/launcher.py`, whose command line this is."""

from __future__ import annotations

from experiment.launcher import main
from store.console import run_command

if __name__ == "__main__":
    run_command(main)
