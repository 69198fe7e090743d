"""What was found inside the arms of a run, as pictures and in words."""

from __future__ import annotations

from pathlib import Path

from analysis.pages.drawing import Drawn, house_style
from analysis.pages.figures import Figure, saved
from analysis.pages.inside_figures import draw_fresh, draw_patching, draw_profiles, draw_similarity
from store.inside_summary import InsideSummary


def save_inside_figures(inside: InsideSummary, folder: Path) -> list[Figure]:
    """Draw into `folder` what there is: similarity, profiles by layer, small adapters, patching."""
    folder.mkdir(parents=True, exist_ok=True)
    with house_style():
        drawn: dict[str, Drawn] = {}
        if inside.arms or inside.fresh:
            drawn["similarity"] = draw_similarity(inside)
        if any(arm.layers.names for arm in inside.arms.values()):
            drawn["profiles"] = draw_profiles(inside)
        if any(fresh.relation_contexts for fresh in inside.fresh.values()):
            drawn["fresh"] = draw_fresh(inside)
        if inside.patching:
            drawn["patching"] = draw_patching(inside)
        return [saved(picture, folder / f"{name}.png") for name, picture in drawn.items()]
