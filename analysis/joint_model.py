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
from collections.abc import Mapping
from typing import Any

from analysis.pages.text import interval, number
from analysis.study.gate import GateResult
from analysis.study.joint import Case, JointResult, case_of
from analysis.study.output import output_folder
from analysis.study.subject import Subject, add_subject, read_subject
from store.console import run_command, say
from store.files import write_json
from store.provenance import provenance
from task.errors import InputError

COMMAND, FOLDER = "analysis.joint_model", "joint"

WARMUP, DRAWS = 500, 1000
"""Of each chain: rho then had 640 to 3,400 effective draws on the released trials, 1,100 to 2,800 on simulated ones."""

FEWEST = 100
"""Warm-up and draws below which neither the sampler's step nor R-hat means anything."""


def fit_case(case: Case, gate: GateResult, *, seed: int, warmup: int = WARMUP, draws: int = DRAWS) -> JointResult:
    """Fit one comparison, unless the gate was not passed.

    Raises:
        InputError: NumPyro is not installed.
    """
    if not gate.passed:
        return JointResult(case, False, None, "not testable, the gate was not passed")
    sampler = import_sampler()
    try:
        fit = sampler.fit(case.chose_a, case.difference, case.reports, seed=seed, warmup=warmup, draws=draws)
    except InputError as error:
        return JointResult(case, True, None, f"no rho: {error}")
    return JointResult(case, True, fit)


def import_sampler() -> Any:
    """The module that needs the optional dependencies.

    Raises:
        InputError: They are not installed.
    """
    try:
        return importlib.import_module("analysis.study.joint_sampler")
    except ModuleNotFoundError as error:
        raise InputError(f"{COMMAND} needs {error.name}, which is not installed: pip install -e '.[joint]'") from None


def _chosen(names: list[str], wanted: list[str] | None) -> list[str]:
    """The comparisons asked for, all of them if none was."""
    if unknown := [name for name in wanted or [] if name not in names]:
        raise InputError(f"--comparison {unknown[0]}: no such comparison; there are: {', '.join(names)}")
    return wanted or names


def _write(subject: Subject, cases: Mapping[str, Case], options: argparse.Namespace) -> None:
    """Fit all cases and write `summary.json`, a line for each on the screen."""
    settings = {"chains": 2, "warmup": options.warmup, "draws": options.draws}
    gate, seed = subject.findings.gate, subject.findings.seed
    with output_folder(subject.out, COMMAND, {**subject.inputs, **settings, "comparisons": list(cases)}) as draft:
        found = {}
        for name, case in cases.items():
            result = fit_case(case, gate, seed=seed, warmup=options.warmup, draws=options.draws)
            found[name] = result.as_dict()
            say(f"{name}: {_line(result)}")
        described = {"passed": gate.passed, "reasons": gate.reasons}
        made = {**subject.inputs, "sampler": settings, "gate": described, "comparisons": found, **provenance()}
        write_json(draft / "summary.json", made)
    say(str(subject.out / "summary.json"))


def _line(result: JointResult) -> str:
    fit = result.fit
    if fit is None:
        return result.reason
    text = f"rho = {number(fit.rho, signed=True)} {interval(fit.hdi_low, fit.hdi_high, signed=True)}"
    text += f", R-hat {number(fit.rhat, 3)}, {number(fit.ess_bulk, 0)} effective draws, {number(fit.seconds, 0)} s"
    text += f"; r {number(result.case.result.agreement.r, signed=True)}"
    text += f"; without noise {number(result.case.corrected.r, signed=True)}"
    return text if result.mixed else f"{text} (chains have not mixed: give more --warmup and --draws)"


def main() -> None:
    """Command line: `--run FOLDER`, or `--data FOLDER --model NAME --out FOLDER`."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    add_subject(parser, FOLDER)
    parser.add_argument("--comparison", nargs="+", metavar="NAME", help="which comparisons (default: all)")
    parser.add_argument("--warmup", type=int, default=WARMUP, help=f"warm-up of each chain (default: {WARMUP})")
    parser.add_argument("--draws", type=int, default=DRAWS, help=f"draws of each chain (default: {DRAWS})")
    options = parser.parse_args()
    import_sampler()
    for name in ("warmup", "draws"):
        if (given := getattr(options, name)) < FEWEST:
            raise InputError(f"--{name} {given}: too few to say whether the chains agree; give {FEWEST} or more")
    subject = read_subject(options, FOLDER, COMMAND)
    names = _chosen([c.name for c in subject.findings.comparisons], options.comparison)
    _write(subject, {name: case_of(subject.results, name) for name in names}, options)


if __name__ == "__main__":
    run_command(main)
