"""Several runs together: their figures pooled, and what they say of the claims.

    python -m analysis.study runs/organism-seed0 runs/organism-seed1 runs/organism-seed2 --out study
    python -m analysis.study runs/organism-seed0 --released released gpt-4o-mini --out study
    python -m analysis.study --released trials m --contexts released --where flipped=0 --out study

A run is a run folder that was analysed, or a folder of results with its `run.json` and `summary.json`. Trials that
others released are read as runs; `--contexts`, `--weights` and `--where` are those of `analysis.released`, for all of
them. Writes `study.csv` (a row a figure and run), `summary.json`, `figures/`, `report.html` and `manifest.json`, in
place of what an earlier call left there; and `curves.csv` (a row a state, figure and run) where runs have steps of a
training, cuts of an adapter or trainings in some layers.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import pandas as pd

from analysis.cross_model import Crossed, Model, crossed, model_of, sharing_contexts
from analysis.pages.study_page import save_study_figures, write_study_page
from analysis.pages.study_text import sentence
from analysis.study.output import check_replaceable, output_folder
from analysis.study.released_files import Elsewhere
from analysis.study.released_results import read_released
from analysis.study.results import Findings, analyse
from analysis.study.series_study import state_rows
from analysis.study.several import StudyRun, read_study_run, released_study_run
from analysis.study.study import Study, claim_summary, figure_summaries, run_summaries, study_of
from analysis.study.subject import add_elsewhere, read_elsewhere
from store.console import run_command, say, warn
from store.files import write_text
from store.provenance import provenance
from store.run import RunFolder, read_run
from store.state_inputs import finished_trials
from store.study_summary import CrossedSummary, StudySummary, write_study
from task.errors import InputError

COMMAND = "analysis.study"

CROSSED = ("instilled", "introspection_trained", "native_after")
"""Comparisons of which the cross-model matrix is made, where at least two runs have them on the same contexts."""


def read_runs(runs: Sequence[Path], released: Sequence[Sequence[str]], elsewhere: Elsewhere | None = None) -> Study:
    """Read all runs; `elsewhere` is of all released trials.

    Raises:
        InputError: There is none, one was not analysed, or two have one name; or `elsewhere` is of nothing.
    """
    if not runs and not released:
        raise InputError("no run given; name run folders, or released trials with --released")
    if elsewhere not in (None, Elsewhere()) and not released:
        raise InputError(
            "--contexts, --weights and --where belong to --released; a run has its own contexts and weights"
        )
    read = [read_study_run(path) for path in runs]
    for folder, model in released:
        read.append(released_study_run(Path(folder), read_released(Path(folder), model, elsewhere)))
    return study_of(read)


def cross(study: Study, notes: list[str]) -> dict[str, Crossed]:
    """The cross-model matrices of the runs whose trials are there; why there is none goes to `notes`."""
    found = {run.name: findings for run in study.runs if (findings := _findings(run))} if len(study.runs) > 1 else {}
    matrices = {}
    for name in CROSSED:
        models = [_model(run, found[run.name], name) for run in study.runs if run.name in found and _has(run, name)]
        for alike in sharing_contexts(models):
            title = name if len(alike) == len(models) else f"{name} ({', '.join(model.name for model in alike)})"
            try:
                matrices[title] = crossed(alike)
            except InputError as error:
                notes.append(f"No cross-model matrix of {title}: {error}")
    return matrices


def _has(run: StudyRun, comparison: str) -> bool:
    return f"{comparison}.r" in run.figures and run.figures[f"{comparison}.r"].testable


def _findings(run: StudyRun) -> Findings | None:
    """A run analysed, if its trials are there."""
    if run.folder is None:
        return run.released
    trials = finished_trials(RunFolder(run.folder), read_run(run.folder))
    return analyse(run.folder) if RunFolder(run.folder).inputs.is_dir() and any(True for _ in trials) else None


def _model(run: StudyRun, findings: Findings, comparison: str) -> Model:
    return replace(model_of(findings, comparison, run.name, run.model), name=run.name)


def mixed_estimators(study: Study) -> str | None:
    """That runs whose weights are estimated in different ways are pooled; None where they are not."""
    by: dict[str, list[str]] = {}
    for run in study.runs:
        by.setdefault(run.estimator, []).append(run.name)
    if len(by) == 1:
        return None
    parts = [f"by {estimator} in {', '.join(names)}" for estimator, names in by.items()]
    return f"weights are estimated {'; '.join(parts)}: what is pooled over these mixes estimators"


def table(study: Study) -> pd.DataFrame:
    """`study.csv`: a row a figure and run."""
    rows = []
    for figure in study.figures:
        for run in study.runs:
            if estimate := run.figures.get(figure):
                of_run = _whose(run)
                claims = " ".join(study.claims_of(figure))
                rows.append(
                    {"figure": figure, "claims": claims, **of_run, **estimate.as_dict(), "testable": estimate.testable}
                )
    return pd.DataFrame(rows)


def _whose(run: StudyRun) -> dict[str, Any]:
    return {"run": run.name, "group": run.group, "model": run.model, "seed": run.seed}


def curves(study: Study) -> pd.DataFrame:
    """`curves.csv`: a row for every figure of every state of every run; empty where there are no series."""
    rows = [{**_whose(run), **row} for run in study.runs if run.summary for row in state_rows(run.summary)]
    return pd.DataFrame(rows).astype({"place": "Int64", "n_contexts": "Int64"}) if rows else pd.DataFrame()


def summary(study: Study, matrices: dict[str, Crossed], notes: list[str]) -> StudySummary:
    """`summary.json`."""
    return StudySummary(
        smallest_effect=study.smallest,
        runs=run_summaries(study),
        figures=figure_summaries(study),
        verdicts={
            group: {v.claim.name: claim_summary(v, sentence(v)) for v in found}
            for group, found in study.verdicts.items()
        },
        cross_model={
            name: CrossedSummary(
                runs=[model.name for model in c.models],
                matrix=c.found.matrix.tolist(),
                weights_matrix=c.found.weights_matrix.tolist(),
                rows={of: asdict(known) | {"own": {"r": known.own}} for of, known in c.known.items()},
            )
            for name, c in matrices.items()
        },
        notes=notes,
        **provenance(),
    )


def write_study_of(study: Study, out: Path) -> StudySummary:
    """Write all of a study to `out`; the folder appears whole or not at all."""
    notes = [mixed] if (mixed := mixed_estimators(study)) else []
    matrices = cross(study, notes)
    found = summary(study, matrices, notes)
    with output_folder(out, COMMAND, {"runs": {run.name: run.key for run in study.runs}}) as draft:
        write_text(draft / "study.csv", table(study).to_csv(index=False))
        if not (states := curves(study)).empty:
            write_text(draft / "curves.csv", states.to_csv(index=False))
        write_study(draft / "summary.json", found)
        write_study_page(study, save_study_figures(study, draft / "figures"), matrices, notes, draft / "report.html")
    return found


def main() -> None:
    """Command line: `RUN RUN ... [--released DIR MODEL] ... --out FOLDER`, and `--contexts`, `--weights`, `--where`."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("runs", type=Path, nargs="*", metavar="RUN", help="run folder that was analysed")
    parser.add_argument(
        "--released",
        nargs=2,
        action="append",
        default=[],
        metavar=("DIR", "MODEL"),
        help="released trials of one model; can be given several times",
    )
    parser.add_argument("--out", type=Path, required=True, help="folder to write; replaced if this command made it")
    add_elsewhere(parser)
    options = parser.parse_args()
    check_replaceable(options.out, COMMAND)
    study = read_runs(options.runs, options.released, read_elsewhere(options))
    if mixed := mixed_estimators(study):
        warn(mixed)
    found = write_study_of(study, options.out)
    for group, verdicts in found.verdicts.items():
        for name, verdict in verdicts.items():
            say(f"{group}: {name}: {verdict.outcome}. {verdict.sentence}")
    say(str(options.out / "report.html"))


if __name__ == "__main__":
    run_command(main)
