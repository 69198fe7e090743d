"""A study: runs together, their figures and what they say of the claims."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import TypeVar

from analysis.study.claims import CLAIMS
from analysis.study.inside_study import DRAWN
from analysis.study.published import FIGURES
from analysis.study.series_study import AS_SHARE, IN_LAYERS
from analysis.study.several import Estimate, StudyRun, grouped, groups_of, pooled_runs, scale_of
from analysis.study.verdicts import ClaimVerdict, judge_claims
from store.curves_summary import AblationSummary, DepthSummary, TrajectorySummary
from store.study_summary import (
    ClaimSummary,
    EstimateSummary,
    FigureSummary,
    PartSummary,
    PooledSummary,
    StudiedRun,
)

Series = TypeVar("Series", TrajectorySummary, AblationSummary, DepthSummary)


@dataclass(frozen=True)
class Study:
    """Runs with names and groups of their own, in the order in which they were given; make it with `study_of`."""

    runs: list[StudyRun]

    @property
    def smallest(self) -> float:
        """The smallest effect of interest: of several that are stated, the smallest."""
        return min(run.smallest for run in self.runs)

    @property
    def groups(self) -> dict[str, list[StudyRun]]:
        """The runs by group."""
        return groups_of(self.runs)

    @cached_property
    def verdicts(self) -> dict[str, list[ClaimVerdict]]:
        """What the runs of each group say of each claim."""
        return {group: judge_claims(members, self.smallest) for group, members in self.groups.items()}

    @property
    def figures(self) -> list[str]:
        """Every figure that any run has."""
        return list(dict.fromkeys(figure for run in self.runs for figure in run.figures))

    @property
    def main_figures(self) -> list[str]:
        """Those that claims are read from, and r of the comparisons that are published."""
        wanted = [f"{name}.r" for name in FIGURES]
        parts = [part for found in self.verdicts.values() for claim in found for part in claim.parts]
        wanted += [figure for part in parts for figure in part.figures]
        there = {*self.figures}
        return [figure for figure in dict.fromkeys(wanted) if figure in there]

    @property
    def inside_figures(self) -> list[str]:
        """Those of what was found inside arms that are drawn."""
        return [figure for figure in self.figures if figure.rpartition(".")[2] in DRAWN]

    @property
    def trajectories(self) -> dict[str, dict[str, TrajectorySummary]]:
        """The trajectories that any run has, by name, then by run."""
        return _by_series({run.name: run.summary.trajectories for run in self.runs if run.summary})

    @property
    def ablations(self) -> dict[str, dict[str, AblationSummary]]:
        """The ablations, likewise."""
        return _by_series({run.name: run.summary.ablations for run in self.runs if run.summary})

    @property
    def depths(self) -> dict[str, dict[str, DepthSummary]]:
        """The series of trainings in some layers, likewise."""
        return _by_series({run.name: run.summary.depths for run in self.runs if run.summary})

    @property
    def depths_of_models(self) -> set[int]:
        """The numbers of layers of the models whose adapters were cut."""
        return {run.layers for run in self.runs if run.layers}

    @property
    def midpoint_figures(self) -> list[str]:
        """Midpoints and how far they are apart: in layers, or as shares where models differ in depth."""
        ending = AS_SHARE if len(self.depths_of_models) > 1 else ""
        wanted = {f"{kind}{ending}" for kind in IN_LAYERS}
        return [figure for figure in self.figures if figure.rpartition(".")[2] in wanted]

    def claims_of(self, figure: str) -> list[str]:
        """The claims that may be read from a figure."""
        return [claim.name for claim in CLAIMS if any(figure in part.figures for part in claim.parts)]

    def estimates(self, figure: str) -> dict[str, Estimate]:
        """A figure by run."""
        return {run.name: run.figures[figure] for run in self.runs if figure in run.figures}


def _by_series(by_run: Mapping[str, Mapping[str, Series]]) -> dict[str, dict[str, Series]]:
    """By series, then by run, what is there by run, then by series."""
    names = dict.fromkeys(name for found in by_run.values() for name in found)
    return {name: {run: found[name] for run, found in by_run.items() if name in found} for name in names}


def study_of(runs: Sequence[StudyRun]) -> Study:
    """A study of some runs.

    Raises:
        InputError: Two have one name.
    """
    return Study(grouped(runs))


def run_summaries(study: Study) -> dict[str, StudiedRun]:
    """The runs for `summary.json`."""
    fields = StudiedRun.model_fields
    return {run.name: StudiedRun(**{name: getattr(run, name) for name in fields}) for run in study.runs}


def figure_summaries(study: Study) -> dict[str, FigureSummary]:
    """The figures for `summary.json`."""
    found = {}
    for figure in study.figures:
        runs = {
            name: EstimateSummary(testable=e.testable, **e.as_dict()) for name, e in study.estimates(figure).items()
        }
        together = {
            group: PooledSummary(**summed.as_dict())
            for group, members in study.groups.items()
            if (summed := pooled_runs(figure, members)).runs
        }
        found[figure] = FigureSummary(scale=scale_of(figure), runs=runs, pooled=together)
    return found


def claim_summary(found: ClaimVerdict, sentence: str) -> ClaimSummary:
    """A verdict for `summary.json`."""
    parts = [
        PartSummary(
            **{name: getattr(part, name) for name in ("figures", "outcome", "above", "below", "contexts", "trainings")},
            estimate=part.pooled.mean,
            low=part.pooled.low,
            high=part.pooled.high,
            runs=part.pooled.runs,
        )
        for part in found.parts
    ]
    return ClaimSummary(outcome=found.outcome, sentence=sentence, parts=parts)
