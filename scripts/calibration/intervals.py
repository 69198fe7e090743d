"""Do the intervals that we print cover as often as they say, and do the tests reject as often? Measured by simulation.

    python scripts/calibration/intervals.py                      # into results/calibration, some minutes on 2 cores
    python scripts/calibration/intervals.py --studies 100 --out /tmp/calibration        # a first look

Every situation is one way in which reports come about (`scripts.calibration.studies`); studies of 50 and 100 contexts
with 50 and 100 decisions each are drawn and analysed as in `analysis.power`, and the share of intervals that hold the
truth is counted.
The truth of an interval of r(reports, learned weights) is the population's r with the same measurement noise; that of
the corrected r is the planted accuracy, without any noise. Writes calibration.csv, alternatives.csv (other intervals of
r), guide.csv (power, against the figures that studies were planned with), coverage.png and .pdf, and manifest.json. A
README.md of the folder is written by hand and kept: its tables and its conclusions are to be held against new figures.
"""

from __future__ import annotations

import argparse
import shutil
from pathlib import Path

import pandas as pd
from matplotlib.axes import Axes
from matplotlib.lines import Line2D

from analysis.pages.drawing import (
    COLOURS,
    FAINT,
    GREY,
    INK,
    WARNING,
    house_style,
    new_canvas,
    place_axes,
    save_picture,
    write_beside,
)
from analysis.study.output import output_folder
from scripts.calibration.studies import ACCEPTED, alternatives_table, coverage_table, guide_table
from store.console import run_command, say
from task.errors import InputError

WIDTH, LEFT, SIDE, ROW = 90.0, 47.0, 38.0, 3.6
"""In millimetres: the picture, where axes begin, their width, and the height of a row."""

RANGES = {"coverage": (0.80, 1.0), "rejection": (0.02, 0.08)}
"""Of the axes; a share outside is written at the edge."""


def save_coverage_figure(table: pd.DataFrame, path: Path) -> None:
    """Draw all shares as dots, a row a situation; PNG and a PDF beside it, 90 mm wide."""
    with house_style():
        parts = {kind: table[table["kind"] == kind] for kind in RANGES}
        canvas = new_canvas(WIDTH, sum(ROW * _lines(part) + 9.0 for part in parts.values()) + 10.0)
        top = 1.0
        for kind, part in parts.items():
            height = ROW * _lines(part)
            axes = place_axes(canvas, LEFT, top, SIDE, height)
            _draw_kind(axes, part, kind)
            axes.set_xlabel("share that cover" if kind == "coverage" else "share that reject", labelpad=1)
            top += height + 9.0
        looks = (
            (COLOURS[0], COLOURS[0], "50 contexts (or one fit)"),
            (COLOURS[1], COLOURS[1], "100 contexts"),
            (INK, "white", "50 decisions a context"),
            (INK, INK, "100 decisions a context"),
        )
        dots = [Line2D([], [], marker="o", ls="", ms=3.2, mew=0.7, mec=e, mfc=f, label=text) for e, f, text in looks]
        canvas.legend(handles=dots, loc="lower center", ncols=2, borderaxespad=0.3, columnspacing=1.5)
        save_picture(canvas, path)


def _lines(table: pd.DataFrame) -> int:
    """Lines of axes: a heading for each interval or test, and its situations."""
    return sum(len(table[names].drop_duplicates()) for names in (["what"], ["what", "situation"]))


def _draw_kind(axes: Axes, table: pd.DataFrame, kind: str) -> None:
    least, most = RANGES[kind]
    axes.set(xlim=(least, most), ylim=(_lines(table) - 0.5, -0.5), yticks=[])
    axes.spines["left"].set_visible(False)
    axes.axvspan(*ACCEPTED[kind], color=FAINT, alpha=0.5, lw=0, zorder=0)
    axes.axvline(sum(ACCEPTED[kind]) / 2, color=GREY, lw=0.6, zorder=1)
    place = 0
    for what, part in table.groupby("what", sort=False):
        write_beside(axes, place + 0.15, 1.5 - LEFT, str(what), fontweight="bold")
        for situation, rows in part.groupby("situation", sort=False):
            place += 1
            write_beside(axes, place, 3 - LEFT, str(situation))
            _draw_shares(axes, place, rows, least, most)
        place += 1


def _draw_shares(axes: Axes, place: int, rows: pd.DataFrame, least: float, most: float) -> None:
    below = rows[rows["share"] < least]["share"]
    if len(below):
        text = f"◂ {below.min():.2f} to {below.max():.2f}".replace("0.", ".")
        write_beside(axes, place, 0.5, text, color=WARNING)
    for i, (_, row) in enumerate(rows[rows["share"] >= least].iterrows()):
        height = place + 0.14 * (i - (len(rows) - 1) / 2)
        colour = COLOURS[0] if row["contexts"] <= 50 else COLOURS[1]
        reach = 2 * row["standard_error"]
        span = [max(row["share"] - reach, least), min(row["share"] + reach, most)]
        axes.plot(span, [height] * 2, color=colour, lw=0.5, zorder=2)
        face = colour if row["trials"] > 50 else "white"
        axes.plot(row["share"], height, "o", ms=2.8, mec=colour, mfc=face, mew=0.7, clip_on=False, zorder=3)


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--studies", type=int, default=2000, help="of each situation and size; of a null twice as many")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--out", type=Path, default=Path("results/calibration"))
    arguments = parser.parse_args()
    if arguments.studies < 2:
        raise InputError(f"--studies {arguments.studies}; give 2 or more, 2000 for a standard error of .005")
    asked = {"studies": arguments.studies, "seed": arguments.seed}
    page = arguments.out / "README.md"
    with output_folder(arguments.out, "scripts.calibration.intervals", asked) as draft:
        tables = {
            "calibration": coverage_table(**asked),
            "alternatives": alternatives_table(**asked),
            "guide": guide_table(**asked),
        }
        for name, table in tables.items():
            table.to_csv(draft / f"{name}.csv", index=False)
        table = tables["calibration"]
        save_coverage_figure(table, draft / "coverage.png")
        if page.is_file():
            shutil.copy(page, draft)
    wrong = table[~table["as_it_should"]]
    say(f"{len(table) - len(wrong)} of {len(table)} shares are as they should be; the others:")
    say(wrong[["what", "situation", "trials", "contexts", "share", "standard_error"]].to_string(index=False))
    say(f"{arguments.out}: coverage.png, coverage.pdf, {', '.join(f'{name}.csv' for name in tables)}")


if __name__ == "__main__":
    run_command(main)
