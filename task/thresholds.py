"""Every threshold by which the project judges a model's decisions, in one place."""

from __future__ import annotations

import math

GATE_AGREEMENT = 0.80
"""Instillation gate: least share of held-out decisions that must follow the target weights, by the lower end of its 95%
interval from resampling contexts. A probe asks as much of a skill."""

GATE_CORRELATION = 0.80
"""Instillation gate: least r(learned, target), likewise by the lower end."""

READABLE_DECISIONS = 0.9
"""Answer gate: least share of decision trials that are decisions. Weights from nine tenths of the decisions correlate
at .975 or more with those from all of them, even if each missing one goes against the weights; from seven tenths at .81
(these limits and their figures: results/gates)."""

FLIPS = 0.35
"""Answer gate: largest share of pairs whose choice changes with the order of the options. If noise makes the flips, r
of learned with true weights is .94 at 25%, about .89 at 35% and .76 at 43%; decisions are coin tosses at 50%."""

RARER_LETTER = 3
"""Least number of times that the rarer letter must be given in a context, both orders together, for it to have weights.
Over contexts with fewer, r of learned with true weights is .64 or below, and 0 without any."""

DETERMINED = 0.8
"""Answer gate: least share of contexts that have weights. Those that have none are no random choice: where 9% have none
for a position bias, r of the others is .91, and .87 where half have none."""

REVERSED = 0.3
"""Agreement at or below this, which no chance brings about, means that decisions go against the target weights."""

REVERSED_R = -0.5
"""r(learned, target) at or below this, likewise."""

COLLAPSED = 0.9
"""A share of one letter beyond this is a collapse: in balanced trials each is right half of the time."""

LETTER_DECIDES = 0.55
"""Above this share of choices that change with the order, the letter decides: noise alone brings half of them about."""

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

OPENS = 0.5
"""Below this mean probability of opening a reply as asked, constrained reports are not what the arm would have said."""

FEW_CONTEXTS = 20
"""Below this number of contexts an interval from resampling contexts is visibly too narrow."""

SMALLEST_EFFECT = 0.1
"""Smallest correlation, or difference of two, that is of interest where an experiment file says none of its own: about
half the width of an interval with 100 contexts."""
