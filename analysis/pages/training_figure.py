"""The picture of training: losses, and how arms that are taught decisions decide meanwhile."""

from __future__ import annotations

import math
import textwrap
from collections.abc import Iterable
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from numpy.typing import NDArray

from analysis.pages.drawing import COLOURS, GREY, INK, Drawn, columns_of, new_canvas, place_axes, write_above
from analysis.pages.text import plain
from analysis.study.results import RunResults

Array = NDArray[np.float64]

MEASURES = (
    ("letter_accuracy", "letter accuracy", COLOURS[4], "-"),
    ("agreement", "agreement", COLOURS[0], (0, (4, 2))),
    ("share_a", "share of A", GREY, ":"),
)
"""What training on decisions logs beside the loss: key, label, colour, line."""


def has_curves(results: RunResults) -> bool:
    """Whether any training logged something that can be drawn."""
    return any(_panels_of(log) for log in results.curves.values())


def draw_training(results: RunResults) -> Drawn:
    """Loss of every trained arm by step, and how the arms that were taught decisions decide meanwhile."""
    arms = sorted(results.curves, key=results.place)
    panels = [(arm, kind) for arm in arms for kind in _panels_of(results.curves[arm])]
    columns = columns_of(len(panels))
    side, height, gap, left, above, below = 33.0, 24.0, 12.0, 12.0, 13.0, 9.0
    rows = math.ceil(len(panels) / columns)
    width = left + columns * side + (columns - 1) * gap + 5
    keys = 5 if width >= 130 else 3 if width >= 80 else 1
    canvas = new_canvas(width, rows * (above + height + below) + 4 * math.ceil(5 / keys) + 3)
    for i, (arm, kind) in enumerate(panels):
        row, column = divmod(i, columns)
        axes = place_axes(canvas, left + column * (side + gap), row * (above + height + below) + above, side, height)
        _curves(axes, results.curves[arm], kind)
        write_above(axes, textwrap.wrap(plain(arm), 24)[:2], [kind])
        axes.set_xlabel("step", labelpad=1)
        axes.locator_params(axis="x", integer=True, nbins=4)
    lines = {str(line.get_label()): line for axes in canvas.axes for line in axes.get_lines()}
    canvas.legend(lines.values(), lines.keys(), loc="lower left", ncols=keys, columnspacing=1.2, handlelength=2.2)
    caption = (
        "Loss, and for arms that are taught decisions the share of trials in which the right letter is the likeliest "
        "of all tokens (letter accuracy) or the likelier of the two letters (agreement), and the share of A. "
        "Held-out trials where they were evaluated, else the training batches."
    )
    return canvas, "Training", caption


def _panels_of(log: list[dict[str, Any]]) -> list[str]:
    """Which panels a training log can fill: `loss`, `held-out decisions`, `training decisions`."""
    panels = ["loss"] if _logged(log, "loss")[0].size or _logged(log, "eval_loss")[0].size else []
    for prefix, panel in (("eval_", "held-out decisions"), ("", "training decisions")):
        if any(_logged(log, prefix + key)[0].size for key, *_ in MEASURES):
            return [*panels, panel]
    return panels


def _logged(log: Iterable[dict[str, Any]], key: str) -> tuple[Array, Array]:
    """Steps and values of one key; of several entries for a step, the last. What was no finite number leaves a gap."""
    pairs = ((entry["step"], entry[key]) for entry in log if key in entry and "step" in entry)
    found = {step: math.nan if value is None else float(value) for step, value in pairs}
    steps = sorted(found)
    return np.array(steps, dtype=float), np.array([found[step] for step in steps])


def _curves(axes: Axes, log: list[dict[str, Any]], kind: str) -> None:
    if kind == "loss":
        axes.plot(*_logged(log, "loss"), color=GREY, lw=0.9, label="training loss")
        if (held_out := _logged(log, "eval_loss"))[0].size:
            axes.plot(*held_out, "o-", color=INK, ms=2.5, label="held-out loss")
    else:
        prefix = "eval_" if kind.startswith("held-out") else ""
        for key, label, colour, line in MEASURES:
            steps, values = _logged(log, prefix + key)
            axes.plot(steps, values, color=colour, ls=line, marker="o" * (len(steps) <= 30), ms=2, label=label)
        axes.set(ylim=(-0.03, 1.03), yticks=[0, 0.5, 1])
    axes.set_xlim(0, 1.02 * max(entry.get("step", 0) for entry in log) or 1)
