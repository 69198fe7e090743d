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
from typing import Any

from analysis.pages.text import NOT_TESTABLE, interval, number
from analysis.study.joint import Case, case_of
from analysis.study.output import output_folder
from analysis.study.subject import add_subject, read_subject
from store.console import run_command, say
from store.files import write_json
from store.provenance import provenance
from task.errors import InputError

COMMAND, FOLDER = "analysis.joint_model", "joint"

WARMUP, DRAWS = 500, 1000
"""Of each chain: rho then had 640 to 3,400 effective draws on the released trials, 1,100 to 2,800 on simulated ones."""

FEWEST = 100
"""Warm-up and draws below which neither the sampler's step nor R-hat means anything."""


def fit_case(
    case: Case, untestable: str | None, *, seed: int, warmup: int = WARMUP, draws: int = DRAWS
) -> dict[str, Any]:
    """Fit one comparison, unless there is a reason why it is not testable.

    Returns:
        JSON values; `rho` is None, with the `reason`, where nothing was fitted or the data say nothing of rho.

    Raises:
        InputError: NumPyro is not installed.
    """
    plain = case.result.agreement.as_dict()
    counts = {key: plain[key] for key in ("valid_reports", "total_reports")}
    if untestable:
        return {"testable": False, "rho": None, "reason": f"{NOT_TESTABLE}, {untestable}", **counts}
    sampler = import_sampler()
    try:
        fit = sampler.fit(case.chose_a, case.difference, case.reports, seed=seed, warmup=warmup, draws=draws)
    except InputError as error:
        return {"testable": True, "rho": None, "reason": f"no rho: {error}", **counts}
    return {
        "testable": True,
        **fit.as_dict(),
        "mixed": fit.mixed,
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


def _line(found: dict[str, Any], case: Case) -> str:
    if "reason" in found:
        return str(found["reason"])
    rho, ends = number(found["rho"], signed=True), interval(found["hdi_low"], found["hdi_high"], signed=True)
    chains = f"R-hat {number(found['rhat'], 3)}, {number(found['ess_bulk'], 0)} effective draws"
    plain, corrected = (number(r, signed=True) for r in (case.result.agreement.r, case.corrected.r))
    doubt = "" if found["mixed"] else " (chains have not mixed: give more --warmup and --draws)"
    took = number(found["seconds"], 0)
    return f"rho = {rho} {ends}, {chains}, {took} s; r {plain}; without noise {corrected}{doubt}"


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
    results, out = read_subject(options, FOLDER, COMMAND)
    known = [c.name for c in results.comparisons]
    names = options.comparison or known
    if unknown := [name for name in names if name not in known]:
        raise InputError(f"--comparison {unknown[0]}: no such comparison; there are: {', '.join(known)}")
    chains = {"warmup": options.warmup, "draws": options.draws}
    settings = {"chains": 2, **chains}
    with output_folder(out, COMMAND, {**results.inputs, **settings, "comparisons": names}) as draft:
        found = {}
        for name in names:
            case = case_of(results, name)
            found[name] = fit_case(case, results.untestable(case.result), seed=results.seed, **chains)
            say(f"{name}: {_line(found[name], case)}")
        gate = {"passed": results.gate.passed, "reasons": results.gate.reasons}
        made = {**results.inputs, "sampler": settings, "gate": gate, "comparisons": found, **provenance()}
        write_json(draft / "summary.json", made)
    say(str(out / "summary.json"))


if __name__ == "__main__":
    run_command(main)
