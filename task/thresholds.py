"""Every threshold by which the project judges a model's decisions, in one place."""

from __future__ import annotations

import math

GATE_AGREEMENT = 0.80
"""The gate: least share of held-out decisions that must follow the target weights. A probe asks as much of a skill."""

GATE_CORRELATION = 0.80
"""The gate: least r(learned, target)."""

COLLAPSED = 0.9
"""A share of one letter beyond this is a collapse: in balanced trials each is right half of the time."""

FLIPS = 0.5
"""Above this share of choices that change with the order, the letter decides more than the option does."""

ANSWERS = 0.5
"""Below this mean P(A) + P(B) the model mostly wants to answer with something else than a letter."""

CHANCE = 0.6
"""Agreement up to here may be luck, however few decisions are held out."""

CONFIDENT = 1.25 * math.log(2)
"""Letter loss above this is worse than not knowing (ln 2): the model is sure, and wrong."""

TRUSTED_PARETO_K = 0.7
"""Pareto k of importance weights above which a posterior is not to be trusted (Vehtari et al. 2024)."""

READABLE_REPORTS = 0.9
"""Below this share of readable reports a page names it."""

FEW_CONTEXTS = 20
"""Below this number of contexts an interval from resampling contexts is visibly too narrow."""
