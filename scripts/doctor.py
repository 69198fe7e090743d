"""See `experiment/doctor.py`, whose command line this is."""

from __future__ import annotations

from experiment.doctor import main
from store.console import run_command

if __name__ == "__main__":
    run_command(main)
