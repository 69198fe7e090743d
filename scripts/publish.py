"""Write a finished run as a folder that others can load, and send it to the Hugging Face Hub if asked to.

    python -m scripts.publish --run runs/demo-seed0                          # writes runs/demo-seed0/published
    python -m scripts.publish --run runs/demo-seed0 --to NAMESPACE/NAME      # and sends it, private

See docs/publishing.md.
"""

from __future__ import annotations

import argparse
from pathlib import Path

from experiment.publish.folder import Published, write_published
from experiment.publish.hub import check_repository, send, shipments
from store.console import run_command, say, warn


def say_what(published: Published, repository: str | None) -> None:
    """Say what was written, what is not in order, and what would be sent, file by file with sizes."""
    for line in published.wrong:
        warn(line)
    rows = ", ".join(f"{name} {count:,}" for name, count in published.rows.items())
    say(f"{published.folder}: {rows} rows, {len(published.adapters)} adapters")
    for part in shipments(published.folder, repository or "NAMESPACE/NAME"):
        total = sum(part.files.values())
        say(f"{'' if repository else 'would be '}sent, private: {part.kind} {part.repository}, {total / 1e6:,.2f} MB")
        for name, size in part.files.items():
            say(f"  {name}  {size / 1e3:,.1f} kB")


def main() -> None:
    """Command line: `--run FOLDER [--out FOLDER] [--to NAMESPACE/NAME]`."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--run", type=Path, required=True, help="run folder, e.g. runs/demo-seed0")
    parser.add_argument("--out", type=Path, help="folder to write; in the run's own, published, if not given")
    parser.add_argument("--to", metavar="NAMESPACE/NAME", help="send it there, private; without it nothing is sent")
    arguments = parser.parse_args()
    if arguments.to is not None:
        check_repository(arguments.to)
    published = write_published(arguments.run, arguments.out)
    say_what(published, arguments.to)
    if arguments.to is None:
        say("nothing was sent; --to NAMESPACE/NAME sends it")
    else:
        say(f"sent: {send(published.folder, published.record, arguments.to)}")


if __name__ == "__main__":
    run_command(main)
