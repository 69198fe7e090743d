"""See `experiment/launcher.py`, whose command line this is."""

from __future__ import annotations

from store.console import run_command


def main() -> None:
    """Load the launcher, which takes a moment in which Ctrl-C is one line, too, and run it."""
    from experiment.launcher import main as launch

    launch()


if __name__ == "__main__":
    run_command(main)
