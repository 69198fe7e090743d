"""A check as a table: a line each, and below it what to do about those that failed."""

from __future__ import annotations

from rich.console import Console
from rich.markup import escape
from rich.table import Table

from scripts.check_gpu.record import CheckRecord

COLOURS = {"passed": "green", "failed": "bold red", "skipped": "yellow"}


def show(record: CheckRecord, console: Console) -> None:
    """Print the lines, then each failed or skipped one with its remedy."""
    memory = f", {record.memory_gb:.0f} GB" if record.memory_gb else ""
    table = Table("line", "", "s", "found", box=None, padding=(0, 2, 0, 0))
    for line in record.lines:
        more = f" (no time for {', '.join(line.left_out)})" if line.left_out else ""
        state = f"[{COLOURS[line.state]}]{line.state}[/]"
        table.add_row(f"{line.name}: {line.about}", state, f"{line.seconds:.0f}", escape(f"{line.said}{more}"))
    console.print(f"{record.name}{memory}, torch {record.packages.get('torch', '?')}", markup=False)
    console.print(table)
    for line in record.lines:
        if line.state != "passed" and line.remedy:
            console.print(f"{line.name} {line.state}: {line.remedy}", markup=False, soft_wrap=True)
    counts = ", ".join(f"{sum(line.state == state for line in record.lines)} {state}" for state in COLOURS)
    console.print(f"{counts}, {record.seconds:.0f} s", markup=False)
