"""A second opinion on introspection: one Bayesian model of choices and reports, with measurement noise inside it.

    python -m analysis.joint_model --run runs/simulated-seed0 --comparison instilled native_before
    python -m analysis.joint_model --data released --model gpt-4o-mini-2024-07-18 --out results/gpt-4o-mini-joint

Weights from 50 hard choices and means of 10 reports are noisy, and their correlation r is too small for that reason
alone. The joint model estimates rho, the correlation of what is behind the two: the weights on the scale of the log
odds, and the belief that single reports scatter about (densities and priors: `analysis.study.joint_sampler`). It
sees the same letters as the paper's estimator, the first option shown as A. Missing reports are absent from it.

Where r falls short of rho, measurement is to blame; where both are small, the reports are. rho stands beside r and
beside r over the square root of the reliabilities, which corrects for the same noise in another way.

Writes `joint/summary.json` into the run's folder (or --out), in place of what an earlier call left there.
"""

from __future__ import annotations

import argparse
import importlib
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from analysis.stats.reliability import CorrectedR, corrected_r, halves_of_reports, halves_of_weights
from analysis.study.comparisons import ComparisonResult
from analysis.study.gate import GateResult
from analysis.study.output import check_replaceable, output_folder, run_inputs
from analysis.study.released_files import REPORTS, find_model, load_model
from analysis.study.released_results import analyse_released
from analysis.study.results import RunResults, analyse
from store.contexts import load_contexts
from store.files import write_json
from store.provenance import provenance
from store.trials import read_decisions, read_reports
from task.contexts import ChoiceContext
from store.console import run_command
from task.errors import InputError
from task.seeding import stream

COMMAND = "analysis.joint_model"

WARMUP, DRAWS = 500, 1000
"""Of each chain: rho then had 640 to 3,400 effective draws on the released trials, 1,100 to 2,800 on simulated ones."""

FEWEST = 100
"""Warm-up and draws below which neither the sampler's step nor R-hat means anything."""

MIXED = 1.01
"""R-hat from which chains cannot be said to agree (Vehtari et al. 2021, Bayesian Analysis 16)."""


@dataclass(frozen=True)
class Case:
    """One comparison with the trials behind it.

    Attributes:
        result: The comparison with its plain r.
        chose_a: 1 where A was chosen, 0 where B, NaN where missing, shape (contexts, trials).
        difference: (A - B) / range, shape (contexts, trials, attributes).
        reports: NaN where missing, shape (contexts, report trials, attributes).
        corrected: r over the square root of the reliabilities.
    """

    result: ComparisonResult
    chose_a: NDArray[np.float64]
    difference: NDArray[np.float64]
    reports: NDArray[np.float64]
    corrected: CorrectedR


def run_case(run: Path, results: RunResults, name: str) -> Case:
    """A comparison of a run; its arms may be several folds, each speaking for its own contexts."""
    entry = next(e for e in results.record["comparisons"] if e["name"] == name)
    result = next(c for c in results.comparisons if c.name == name)
    contexts = {c.name: c for file in results.record["groups"].values() for c in load_contexts(run / file)}
    members = [n for source in entry["reports"] for n in source["contexts"]]
    chose_a, difference = _decisions(run, entry["weights"], members, contexts)
    reports = _reports(run, entry["reports"], members)
    seed = results.record["seed"]
    mean, weights = (result.points[axis].to_numpy().reshape(len(members), -1) for axis in "xy")
    corrected = corrected_r(
        mean,
        weights,
        halves_of_reports(reports, rng=stream(seed, "halves_of_reports", name)),
        halves_of_weights(chose_a, difference, rng=stream(seed, "halves_of_weights", name), seed=seed),
        seed=seed,
    )
    return Case(result, chose_a, difference, reports, corrected)


def summary_of(case: Case, gate: GateResult, *, seed: int, warmup: int = WARMUP, draws: int = DRAWS) -> dict[str, Any]:
    """Fit one comparison; JSON values.

    `rho` is None, with the reason, where the gate was not passed (nothing is fitted then) and where the data say
    nothing of it.

    Raises:
        InputError: NumPyro is not installed.
    """
    plain = case.result.agreement.as_dict()
    counts = {key: plain[key] for key in ("valid_reports", "total_reports")}
    if not gate.passed:
        return {"testable": False, "rho": None, "reason": "not testable, the gate was not passed", **counts}
    sampler = import_sampler()
    try:
        fit = sampler.fit(case.chose_a, case.difference, case.reports, seed=seed, warmup=warmup, draws=draws)
    except InputError as error:
        return {"testable": True, "rho": None, "reason": f"no rho: {error}", **counts}
    return {
        "testable": True,
        **asdict(fit),
        "mixed": fit.rhat_worst < MIXED and not fit.divergences,
        **counts,
        "plain": {key: plain[key] for key in ("r", "boot_low", "boot_high", "n_contexts")},
        "without_noise": case.corrected.as_dict(),
    }


def import_sampler() -> Any:
    """The module that needs the optional dependencies.

    Raises:
        InputError: They are not installed.
    """
    try:
        return importlib.import_module("analysis.study.joint_sampler")
    except ModuleNotFoundError as error:
        raise InputError(f"{COMMAND} needs {error.name}, which is not installed: pip install -e '.[joint]'") from None


def _decisions(
    run: Path, sources: Sequence[Mapping[str, Any]], members: list[str], contexts: Mapping[str, ChoiceContext]
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Letters with the first option as A, and differences, in the order of `members`."""
    found = {s["arm"]: read_decisions(run / "trials" / s["arm"] / "decisions", contexts) for s in sources}
    letters = {arm: (trials.contexts, trials.chose_a[..., 0]) for arm, trials in found.items()}
    differences = {arm: (trials.contexts, trials.difference) for arm, trials in found.items()}
    return _stacked(sources, members, letters, np.nan), _stacked(sources, members, differences, 0)


def _reports(run: Path, sources: Sequence[Mapping[str, Any]], members: list[str]) -> NDArray[np.float64]:
    found = {s["arm"]: read_reports(run / "trials" / s["arm"] / "reports") for s in sources}
    return _stacked(sources, members, {arm: (t.contexts, t.values) for arm, t in found.items()}, np.nan)


def _stacked(
    sources: Sequence[Mapping[str, Any]],
    members: list[str],
    found: Mapping[str, tuple[list[str], NDArray[np.float64]]],
    padding: float,
) -> NDArray[np.float64]:
    """Rows of several arms in the order of `members`, each from the arm that speaks for it, padded to one length."""
    shapes = [values.shape[1:] for _, values in found.values()]
    stacked = np.full((len(members), max(s[0] for s in shapes), *shapes[0][1:]), padding, dtype=float)
    for source in sources:
        names, values = found[source["arm"]]
        for row, name in enumerate(members):
            if name in source["contexts"] and name in names:
                stacked[row, : values.shape[1]] = values[names.index(name)]
    return stacked


def _chosen(names: list[str], wanted: list[str] | None) -> list[str]:
    """The comparisons asked for, all of them if none was."""
    if unknown := [name for name in wanted or [] if name not in names]:
        raise InputError(f"--comparison {unknown[0]}: no such comparison; there are: {', '.join(names)}")
    return wanted or names


def _write(
    out: Path, cases: Mapping[str, Case], gate: GateResult, inputs: dict[str, Any], options: argparse.Namespace
) -> None:
    """Fit all cases and write `summary.json`, a line for each on the screen."""
    settings = {"chains": 2, "warmup": options.warmup, "draws": options.draws}
    with output_folder(out, COMMAND, {**inputs, **settings, "comparisons": list(cases)}) as draft:
        found = {}
        for name, case in cases.items():
            found[name] = summary_of(case, gate, seed=inputs["seed"], warmup=options.warmup, draws=options.draws)
            print(f"{name}: {_line(found[name])}", flush=True)
        described = {"passed": gate.passed, "reasons": gate.reasons}
        write_json(draft / "summary.json", {**inputs, "sampler": settings, "gate": described, **found, **provenance()})
    print(out / "summary.json")


def _line(found: Mapping[str, Any]) -> str:
    if found["rho"] is None:
        return str(found["reason"])
    plain, corrected = found["plain"]["r"], found["without_noise"]["r"]
    text = f"rho = {found['rho']:+.2f} [{found['hdi_low']:+.2f}, {found['hdi_high']:+.2f}]"
    text += f", R-hat {found['rhat']:.3f}, {found['ess_bulk']:.0f} effective draws, {found['seconds']:.0f} s"
    text += "".join(f"; {label} {r:+.2f}" for label, r in (("r", plain), ("without noise", corrected)) if r is not None)
    return text if found["mixed"] else f"{text} (chains have not mixed: give more --warmup and --draws)"


def _cases_of_run(options: argparse.Namespace) -> tuple[dict[str, Case], GateResult, dict[str, Any]]:
    """The comparisons asked for, the gate, and what they depend on."""
    results = analyse(options.run)
    names = _chosen([c.name for c in results.comparisons], options.comparison)
    return {name: run_case(options.run, results, name) for name in names}, results.gate, run_inputs(results)


def _cases_of_released(options: argparse.Namespace) -> tuple[dict[str, Case], GateResult, dict[str, Any]]:
    data = load_model(options.data, find_model(options.data, options.model))
    results = analyse_released(data)
    by_name = {c.name: c for c in results.run.comparisons}
    cases = {}
    for name in _chosen(list(by_name), options.comparison):
        made, reports = data.decisions[REPORTS[name][0]], data.reports[name].values
        cases[name] = Case(by_name[name], made.chose_a, made.difference, reports, results.corrected[name])
    inputs = {"model": data.model, "seed": results.run.record["seed"], "files": data.hashes}
    return cases, results.run.gate, inputs


def main() -> None:
    """Command line: `--run FOLDER`, or `--data FOLDER --model NAME --out FOLDER`."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    source = parser.add_mutually_exclusive_group(required=True)
    source.add_argument("--run", type=Path, help="run folder, e.g. runs/demo-seed0")
    source.add_argument("--data", type=Path, help="folder with the paper's released files")
    parser.add_argument("--model", help="with --data: name of the model, or the beginning of just one name")
    parser.add_argument("--out", type=Path, help="folder to write (default: joint, in the run's folder)")
    parser.add_argument("--comparison", nargs="+", metavar="NAME", help="which comparisons (default: all)")
    parser.add_argument("--warmup", type=int, default=WARMUP, help=f"warm-up of each chain (default: {WARMUP})")
    parser.add_argument("--draws", type=int, default=DRAWS, help=f"draws of each chain (default: {DRAWS})")
    options = parser.parse_args()
    import_sampler()
    if options.data and not (options.model and options.out):
        raise InputError("--data needs --model and --out: whose files, and the folder to write")
    for name in ("warmup", "draws"):
        if (given := getattr(options, name)) < FEWEST:
            raise InputError(f"--{name} {given}: too few to say whether the chains agree; give {FEWEST} or more")
    out = options.out or options.run / "joint"
    check_replaceable(out, COMMAND)
    cases, gate, inputs = _cases_of_run(options) if options.run else _cases_of_released(options)
    _write(out, cases, gate, inputs, options)


if __name__ == "__main__":
    run_command(main)
