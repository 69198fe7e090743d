"""What a run consists of: its arms and how each was made and asked, and which of its comparisons are controls."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field

from analysis.pages.text import listing, plain
from analysis.study.comparisons import ComparisonResult, asked_source
from analysis.study.results import RunResults
from store.run import BASE_ARM, ArmRecord, Source
from task.names import AT
from task.prompts import DEFAULT

OF_LABELS = {
    "shuffled": "trained on the weights of other contexts: what the form of a report and its base rates achieve",
    "redrawn": "trained on weights that this arm was never taught: labels of another run",
    "learned": "trained on weights measured in its own decisions, not on those that it was taught",
}
"""What reports are that were taught with other labels than the target weights."""


@dataclass(frozen=True)
class Node:
    """An arm of the picture of a run.

    Attributes:
        arm: Its name.
        made: How it was made, in words.
        asked: What it was asked, a line each.
        children: The arms that were trained from it.
    """

    arm: str
    made: str
    asked: list[str]
    children: list[Node] = field(default_factory=list)


def tree(results: RunResults) -> list[Node]:
    """The arms of a run under those that they were trained from; sums of adapters stand by themselves.

    Kept steps, cuts and small adapters of one context each are counted at the arm that they belong to.
    """
    arms = {arm: record for arm, record in results.record.arms.items() if results.stands_alone(arm)}
    parts = Counter(map(_part_of, results.record.arms, results.record.arms.values()))
    nodes = {
        arm: Node(arm, _made(results, arm, record), [*_asked(results, arm), *_parts(arm, parts)])
        for arm, record in arms.items()
    }
    roots = []
    for arm, record in arms.items():
        parent = record.start if record.start in nodes else BASE_ARM
        if record.training and parent in nodes:
            nodes[parent].children.append(nodes[arm])
        else:
            roots.append(nodes[arm])
    return roots


def _part_of(name: str, record: ArmRecord) -> tuple[str | None, str]:
    """The arm that a kept step, a cut or a small adapter belongs to, and which of these it is; none for any other."""
    if record.step is not None:
        return name.partition(AT)[0], "kept steps"
    if record.cut_of is not None:
        return record.cut_of, "cuts"
    if record.context is not None and record.derived is not None:
        return record.on_top_of, f"small adapters “{plain(record.training or name)}” on top of it, a context each"
    return None, ""


def _parts(arm: str, parts: Counter[tuple[str | None, str]]) -> Iterator[str]:
    return (f"{count} {what}" for (whole, what), count in parts.items() if whole == arm)


def _made(results: RunResults, arm: str, record: ArmRecord) -> str:
    if record.derived is not None:
        terms = record.derived.items()
        return f"a sum of adapters: {' + '.join(f'{_weights(parts)} of {plain(term)}' for term, parts in terms)}"
    if record.training is None:
        return "before any training" if arm == BASE_ARM else "planted"
    group = f"on {plain(record.contexts)} contexts" if record.contexts else f"by training “{plain(record.training)}”"
    labels = f", {record.labels} labels" if record.labels not in (None, "target") else ""
    made = results.stages.get(f"adapters/{arm}")
    unknown = record.start is None and made is not None and made.depends_on.get("adapter") is not None
    return f"taught {record.teach} {group}{labels}{', from another arm' if unknown else ''}"


def _weights(parts: object) -> str:
    """What an adapter is multiplied by."""
    found = parts if isinstance(parts, list) else [parts]
    return listing([f"{part['weight']:g}" if isinstance(part, dict) else str(part) for part in found])


def _asked(results: RunResults, arm: str) -> Iterator[str]:
    for asked, decided in results.decided.items():
        if asked.partition(" (")[0] == arm:
            yield f"{int(decided.shown.sum()):,} decisions{_how(asked)} on {_where(results, decided.contexts)}"
    for asked, reported in results.reported.items():
        if asked.partition(" (")[0] == arm:
            yield f"{int(reported.total.sum()):,} reports{_how(asked)} on {_where(results, reported.contexts)}"


def _how(asked: str) -> str:
    variant = asked.partition(" (")[2]
    return f" ({plain(variant)}" if variant else ""


def _where(results: RunResults, names: list[str]) -> str:
    covered = {*names}
    counts = {group: len(covered & {*members}) for group, members in results.groups.items()}
    return listing([f"{count} {plain(group)}" for group, count in counts.items() if count])


def controls(results: RunResults) -> list[tuple[ComparisonResult, str]]:
    """The comparisons that are controls, with what each is."""
    found = ((c, _control(results, c)) for c in results.comparisons)
    return [(c, why) for c, why in found if why]


def _control(results: RunResults, comparison: ComparisonResult) -> str:
    """What a comparison controls for; nothing where it is none."""
    arms = results.record.arms
    why = dict.fromkeys(words for source in comparison.reported_by if (words := _of_reports(arms, source)))
    reported, decided = ({s.arm for s in side} for side in (comparison.reported_by, comparison.decided_by))
    if not why and reported.isdisjoint(decided):
        taught = {arms[arm].training for arm in decided if arms[arm].teach == "decisions"}
        own = {arms[arm].training for arm in reported if arms[arm].teach == "decisions"}
        if taught and own and taught != own:
            why[f"held against the weights of {listing(sorted(map(plain, decided)))}, another instillation"] = None
    return "; ".join(why)


def _of_reports(arms: dict[str, ArmRecord], source: Source) -> str:
    record = arms[source.arm]
    if source.arm == BASE_ARM:
        return "the model before any training: what common sense alone achieves"
    if record.derived is not None:
        return f"{plain(source.arm)} is a sum of adapters, with no training of its own"
    if source.variant != DEFAULT["reports"]:
        return f"asked otherwise: {plain(asked_source(source, 'reports'))}"
    return OF_LABELS.get(record.labels or "", "")


def control_differences(results: RunResults) -> dict[str, str]:
    """The differences with a control on one side, and which of their comparisons that is."""
    known = {c.name for c, _ in controls(results)}
    sides = {d.name: [plain(side) for side in (d.before, d.after) if side in known] for d in results.differences}
    return {name: f"beside {listing(found)}" for name, found in sides.items() if found}
