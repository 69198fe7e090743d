"""The picture and the page of the calibration of intervals, from its tables."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import matplotlib as mpl
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.lines import Line2D

from analysis.pages.drawing import COLOURS, FAINT, GREY, INK, STYLE, WARNING, new_canvas, place_axes, write_beside
from store.files import write_text

Accepted = Mapping[str, tuple[float, float]]

WIDTH, LEFT, SIDE, ROW = 90.0, 47.0, 38.0, 3.6
"""In millimetres: the picture, where axes begin, their width, and the height of a row."""

RANGES = {"coverage": (0.80, 1.0), "rejection": (0.02, 0.08)}
"""Of the axes; a share outside is written at the edge."""

PAGE = """# Do the intervals cover as often as they say?

`python scripts/calibration/intervals.py --studies {studies} --seed {seed}`: every share below is the share of
simulated studies whose 95% interval held the truth, or whose 5% test rejected. Standard error: about {error:.1%}
([calibration.csv](calibration.csv) has each). **Bold**: outside {low:.0%} to {high:.0%}, or a test outside
{reject_low:.0%} to {reject_high:.0%}.

A study has 50 or 100 contexts of 5 attributes with 50 or 100 decisions each (82% of them follow the true weights)
and 10 reports a context, of which a tenth cannot be read. True weights are drawn as the task draws them, learned
ones are the paper's posterior means, rescaled. Reports believe `accuracy x weight + error`, the error being the
same in each report of a context. The truth of an interval of r is the population's r(reports, learned weights):
what a study of endless contexts with as many decisions would find. It is below the accuracy, as learned weights are
noisy; only the corrected r claims to find the accuracy itself. How the pool of contexts makes this exact:
`analysis/stats/simulation.py`.

![Coverage of every interval](coverage.png)

## Coverage

Columns: decisions a context / contexts.

{coverage}
## Tests of unrelated reports

{rejection}
Situations: *errors persist, no effect*: stable errors before and after correlate at .7, accuracy is .3 in both.
*Shared*: the attributes of a context share half of the variance of the stable error. *Lean*: they share half of the
variance of the weights, too. *Differ in scale*: a context's reports are multiplied by a lognormal factor of log-sd
.5. *Known or not at all*: accuracy .95 in about half of the contexts, 0 in the others. *Noisy reports*: sd 80
instead of 10 for a single report.

## What came out

- **Resampling contexts** (the interval we print beside r and for paired differences) is the one to believe. Plain
  percentiles of the resamples cover too little with few contexts; `percentile_interval` therefore takes its ends
  further out (Hesterberg 2015). Below it is held against alternatives: BCa is about as narrow as plain percentiles,
  and a jackknife of Fisher's z covers a little more, but is no interval for a difference or a corrected r.
- Where **contexts differ in the scale of their reports**, it still falls short by one to two and a half points: few
  contexts with large reports decide r, and none of the alternatives sees from 50 contexts how large the next may
  be. Look at the scatter, or at the within-context r.
- **The paper's interval** is no interval of r. It takes sd sqrt((1 - r^2) / n) for the slope between standardised
  weights and reports, where r itself varies about as (1 - r^2) / sqrt(n): too wide with independent attributes, the
  more the larger r is (it always covers at r = .7, and beside learned against target). It takes the attributes of a
  context as independent: too narrow where contexts are known or not at all, or where both weights and errors share
  a direction. Errors that are shared while the weights point both ways do not make it too narrow: their products
  with the weights cancel.
- **The HDI of the weights** covers 95% if slopes are as its prior N(0, 1) has them. The task's slopes are larger
  (up to about 4.3 where 82% of decisions follow them), the prior shrinks them, and most intervals miss: do not read
  them as log odds. On the scale of weights, where only the direction counts, they are wide: 98-99% instead of 95%.
- **The corrected r** covers the planted accuracy. It errs upwards by about one percent with 50 decisions, since
  the prior shrinks weights from 25 decisions more than Spearman-Brown's formula allows for.
- **Permutation test and intervals reject unrelated reports in 5%**, also where reports and weights both lean.

## Other intervals of r

50 decisions a context; the same studies and resamples for all.

{alternatives}
## Power, against the guide

The figures that studies were planned with: a paired difference of .30 -> .40 is found with a power of .69 with 50
contexts and .91 with 100, and a chooser is recovered from 50 decisions at r = .97 without noise, .94 if 82% follow
the weights. Measured here, for correlations *with learned weights* of .30 before and .40 after, by how much the
stable errors of before and after correlate:

{guide}
The recoveries agree. The powers agree if the errors before and after training correlate at about .7; with
independent errors, the default of `analysis.power`, the same difference needs some three times as many contexts.
"""


def save_coverage_figure(table: pd.DataFrame, accepted: Accepted, path: Path) -> None:
    """Draw all shares as dots, a row a situation; PNG and a PDF beside it, 90 mm wide."""
    with mpl.rc_context():
        mpl.rcdefaults()
        mpl.rcParams.update(STYLE)
        kinds = list(accepted)
        entries = {kind: _entries(table[table["kind"] == kind]) for kind in kinds}
        heights = [ROW * len(entries[kind]) for kind in kinds]
        canvas = new_canvas(WIDTH, sum(heights) + 9.0 * len(kinds) + 10.0)
        top = 1.0
        for kind, height in zip(kinds, heights, strict=True):
            axes = place_axes(canvas, LEFT, top, SIDE, height)
            _draw_kind(axes, table[table["kind"] == kind], entries[kind], accepted[kind], RANGES[kind])
            axes.set_xlabel("share that cover" if kind == "coverage" else "share that reject", labelpad=1)
            top += height + 9.0
        canvas.legend(handles=_legend(), loc="lower center", ncols=2, borderaxespad=0.3, columnspacing=1.5)
        canvas.savefig(path, dpi=200, metadata={"Software": None})
        canvas.savefig(path.with_suffix(".pdf"), metadata={"CreationDate": None})


def _entries(table: pd.DataFrame) -> list[tuple[str, str | None]]:
    """Rows of the picture: a heading for each interval or test, then its situations."""
    entries: list[tuple[str, str | None]] = []
    for what, part in table.groupby("what", sort=False):
        entries += [(str(what), None), *((str(what), name) for name in part["situation"].unique())]
    return entries


def _draw_kind(
    axes: Axes,
    table: pd.DataFrame,
    entries: list[tuple[str, str | None]],
    accepted: tuple[float, float],
    ends: tuple[float, float],
) -> None:
    axes.set(xlim=ends, ylim=(len(entries) - 0.5, -0.5), yticks=[])
    axes.spines["left"].set_visible(False)
    axes.axvspan(*accepted, color=FAINT, alpha=0.5, lw=0, zorder=0)
    axes.axvline(sum(accepted) / 2, color=GREY, lw=0.6, zorder=1)
    for place, (what, situation) in enumerate(entries):
        if situation is None:
            write_beside(axes, place + 0.15, 1.5 - LEFT, what, fontweight="bold")
            continue
        write_beside(axes, place, 3 - LEFT, situation)
        rows = table[(table["what"] == what) & (table["situation"] == situation)]
        below = rows[rows["share"] < ends[0]]
        if len(below):
            text = f"◂ {below['share'].min():.2f} to {below['share'].max():.2f}".replace("0.", ".")
            write_beside(axes, place, 0.5, text, color=WARNING)
        for i, (_, row) in enumerate(rows[rows["share"] >= ends[0]].iterrows()):
            height = place + 0.14 * (i - (len(rows) - 1) / 2)
            colour = COLOURS[0] if row["contexts"] <= 50 else COLOURS[1]
            reach = 2 * row["standard_error"]
            span = [max(row["share"] - reach, ends[0]), min(row["share"] + reach, ends[1])]
            axes.plot(span, [height] * 2, color=colour, lw=0.5, zorder=2)
            face = colour if row["trials"] > 50 else "white"
            axes.plot(row["share"], height, "o", ms=2.8, mec=colour, mfc=face, mew=0.7, clip_on=False, zorder=3)


def _legend() -> list[Line2D]:
    looks = (
        (COLOURS[0], COLOURS[0], "50 contexts (or one fit)"),
        (COLOURS[1], COLOURS[1], "100 contexts"),
        (INK, "white", "50 decisions a context"),
        (INK, INK, "100 decisions a context"),
    )
    return [Line2D([], [], marker="o", ls="", ms=3.2, mew=0.7, mec=e, mfc=f, label=text) for e, f, text in looks]


def write_readme(
    tables: Mapping[str, pd.DataFrame], accepted: Accepted, settings: Mapping[str, int], path: Path
) -> None:
    """Write the page; its prose was held against the tables of the default command.

    Args:
        tables: `calibration`, `alternatives` and `guide`, as they are in the CSV files.
        accepted: The shares that count as right, by kind.
        settings: `studies` and `seed`.
        path: The page.
    """
    (low, high), (reject_low, reject_high) = accepted["coverage"], accepted["rejection"]
    table = tables["calibration"]
    text = PAGE.format(
        **settings,
        error=(0.95 * 0.05 / settings["studies"]) ** 0.5,
        low=low,
        high=high,
        reject_low=reject_low,
        reject_high=reject_high,
        coverage=_shares(table[table["kind"] == "coverage"]),
        rejection=_shares(table[table["kind"] == "rejection"]),
        alternatives=_alternatives(tables["alternatives"]),
        guide=_guide(tables["guide"]),
    )
    write_text(path, text)


def _shares(table: pd.DataFrame) -> str:
    """Markdown: a line a situation, a column a size of study; shares that are not as they should be in bold."""
    several = table[table["contexts"] > 1]
    sizes = sorted({(int(t), int(n)) for t, n in zip(several["trials"], several["contexts"], strict=True)})
    lines = [["", "", *(f"{t} / {n}" for t, n in sizes)], ["---"] * (2 + len(sizes))]
    for (what, situation), part in table.groupby(["what", "situation"], sort=False):
        cells = []
        for trials, contexts in sizes:
            found = part[(part["trials"] == trials) & part["contexts"].isin([contexts, 1])]
            cells += [
                f"{s:.1%}" if right else f"**{s:.1%}**" for s, right in found[["share", "as_it_should"]].to_numpy()
            ]
        lines.append([str(what), str(situation), *cells])
    return "".join(f"| {' | '.join(line)} |\n" for line in lines)


def _alternatives(table: pd.DataFrame) -> str:
    """Markdown: a line a situation and number of contexts, a column an interval."""
    keys = ["situation", "contexts"]
    wide = table.pivot_table(index=keys, columns="interval", values="coverage", sort=False)
    lines = [["", "contexts", *wide.columns], ["---"] * (2 + len(wide.columns))]
    for (situation, contexts), row in zip(wide.index, wide.to_numpy(), strict=True):
        lines.append([situation, str(contexts), *(f"{share:.1%}" for share in row)])
    return "".join(f"| {' | '.join(line)} |\n" for line in lines)


def _guide(guide: pd.DataFrame) -> str:
    """Markdown: power by correlation of the errors, for each kind of chooser and number of contexts."""
    power = guide.pivot_table(
        index=["follows", "recovery", "contexts"], columns="error_correlation", values="power_difference"
    )
    head = ["decisions follow", "recovered at", "contexts", *(f"errors correlate {c:g}" for c in power.columns)]
    lines = [head, ["---"] * len(head)]
    for (follows, recovery, contexts), row in zip(power.index, power.to_numpy(), strict=True):
        lines.append([f"{follows:.0%}", f"{recovery:.3f}", str(contexts), *(f"{p:.2f}" for p in row)])
    return "".join(f"| {' | '.join(line)} |\n" for line in lines)
