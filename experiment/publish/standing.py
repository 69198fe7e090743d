"""What of a run is not in order: said in its card and on the terminal, so that nobody takes it for finished."""

from __future__ import annotations

from collections.abc import Iterator

from experiment.publish.card import read_trial_manifest
from store.evaluation import EvalConfig, measure_folder
from store.lora import adapter_hash
from store.run import RunFolder, RunRecord
from store.settings import read_settings
from store.stages import begun, read_origin
from store.state_inputs import TrialFolder, analysis_is_current
from store.summary import read_summary
from task.errors import InputError


def shortcomings(run: RunFolder, record: RunRecord, taken: list[TrialFolder]) -> list[str]:
    """What is unfinished, not from what lies beside it, or not passed; a sentence each, without local paths.

    Args:
        run: The run.
        record: What it consists of.
        taken: The trial folders whose rows are published.
    """
    return [*_unfinished(run, record), *_not_vouched_for(run, taken), *_gates(run, record)]


def _unfinished(run: RunFolder, record: RunRecord) -> Iterator[str]:
    """Adapters and trials that are planned and not there."""
    for name, arm in record.arms.items():
        if (arm.training or arm.derived) and arm.step is None and (stands := begun(run.adapter(name))) != "finished":
            yield f"adapters/{name}: {'sum is' if arm.derived else 'training is'} {stands or 'not begun'}"
    try:
        planned = read_settings(run.stage_config("evaluate"), EvalConfig)
    except InputError:
        yield "what was planned is not known: the run has no stages/evaluate.yaml that can be read"
        return
    for m in planned.measurements:
        folder = run.trials_of(m.arm, m.measure, m.variant, m.constrained)
        if (stands := begun(folder)) != "finished":
            place = f"trials/{m.arm}/{measure_folder(m.measure, m.variant, m.constrained)}"
            yield f"{place}: {stands or 'not begun'}, so none of its trials are here"


def _not_vouched_for(run: RunFolder, taken: list[TrialFolder]) -> Iterator[str]:
    """Trials that are not known to be of the adapter that lies in the run, or not to have been edited."""
    unknown = [f"{t.arm}/{t.path.name}" for t in taken if read_trial_manifest(t).facts.content is None]
    if unknown:
        yield f"trials without a hash in their manifest, so that an edit would not show: {', '.join(unknown)}"
    for arm in dict.fromkeys(trials.arm for trials in taken):
        if begun(adapter := run.adapter(arm)) != "finished":
            continue
        now, asked = adapter_hash(adapter), [trials for trials in taken if trials.arm == arm]
        if others := [t.path.name for t in asked if read_origin(t.path).depends_on.get("adapter") != now]:
            yield (
                f"trials of {arm} ({', '.join(others)}): their manifests tell the adapter by another hash than that of "
                f"adapters/{arm}; it was trained again, or hashed by an earlier version"
            )


def _gates(run: RunFolder, record: RunRecord) -> Iterator[str]:
    """Gates that are not passed, and trainings that were stopped, by the analysis."""
    if not analysis_is_current(run, record):
        yield "no analysis of these trials: no gate has been judged, and learned weights are not here"
        return
    found = read_summary(run.analysis / "summary.json")
    gates = {f"{record.gate.arm}/{record.gate.contexts}": found.gate, **found.instillations}
    for name, gate in gates.items():
        if not gate.passed:
            yield f"instillation gate of {name} not passed: {'; '.join(gate.reasons)}"
    for name, answers in found.decisions.items():
        if not answers.passed:
            yield f"answer gate of {name} not passed: {'; '.join(answers.reasons)}"
    for arm, why in found.stopped_early.items():
        yield f"training of {arm} stopped early at {why}"
    for name, comparison in found.comparisons.items():
        if not comparison.testable:
            yield f"comparison {name} not testable: {comparison.reason}"
