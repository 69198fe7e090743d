"""The card of a published run: what its rows are, where they come from, and what is not in order."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from huggingface_hub import DatasetCard, DatasetCardData

from experiment.publish.adapters import TAGS, TEMPLATES, PublishedAdapter, base_name
from store.manifests import DecisionFacts, Manifest, ReportFacts, read_manifest
from store.provenance import PACKAGES
from store.run import RunRecord
from store.state_inputs import TrialFolder
from task.replies import REASONS, UNDECIDED

OWN_LICENCE = "apache-2.0"
"""Of what the project itself wrote: prompts, and the contexts that come with it."""


@dataclass(frozen=True)
class TrialCounts:
    """A trial file in the card: how it was asked, its rows, and those that are no answer by reason."""

    arm: str
    asked: str
    rows: int
    missing: int
    reasons: str
    content: str | None


def trial_counts(trials: TrialFolder, manifest: Manifest[DecisionFacts] | Manifest[ReportFacts]) -> TrialCounts:
    """What the card says of one trial file."""
    facts = manifest.facts
    why = facts.undecided if isinstance(facts, DecisionFacts) else facts.unreadable
    reasons = ", ".join(f"{reason} {count}" for reason, count in why.items())
    return TrialCounts(trials.arm, trials.path.name, facts.rows, sum(why.values()), reasons, facts.content)


def read_trial_manifest(trials: TrialFolder) -> Manifest[DecisionFacts] | Manifest[ReportFacts]:
    """The manifest of a trial folder."""
    if trials.measure == "decisions":
        return read_manifest(trials.path, DecisionFacts)
    return read_manifest(trials.path, ReportFacts)


def dataset_card(
    record: RunRecord,
    rows: Mapping[str, int],
    taken: Sequence[TrialFolder],
    adapters: Sequence[PublishedAdapter],
    wrong: Sequence[str],
) -> DatasetCard:
    """The card of a run.

    Args:
        record: What the run consists of.
        rows: Rows of each table.
        taken: The trial folders that the tables are of.
        adapters: What is published beside the tables.
        wrong: What is not in order.
    """
    manifests = [read_trial_manifest(trials) for trials in taken]
    files = [trial_counts(trials, manifest) for trials, manifest in zip(taken, manifests, strict=True)]
    licence = record.model.licence if record.model else OWN_LICENCE
    data = DatasetCardData(
        license=licence,
        language="en",
        pretty_name=record.name,
        tags=TAGS,
        configs=[{"config_name": name, "data_files": f"data/{name}.parquet"} for name in rows],
    )
    return DatasetCard.from_template(
        data,
        template_path=str(TEMPLATES / "dataset.md.j2"),
        record=record,
        base=base_name(record),
        licence=licence,
        own_licence=OWN_LICENCE,
        rows=rows,
        files=files,
        adapters=adapters,
        wrong=wrong,
        made=_made(manifests),
        undecided=UNDECIDED,
        unreadable=REASONS,
    )


def _made(manifests: Sequence[Manifest[Any]]) -> dict[str, str]:
    """Where the trials come from, in words: each thing with all the values that it had."""

    def values(found: Sequence[object]) -> str:
        return ", ".join(sorted({str(value) for value in found if value is not None}))

    versions = {name: values([m.packages.get(name) for m in manifests]) for name in PACKAGES}
    said = {
        "git": values([m.git for m in manifests]),
        "python": values([m.python for m in manifests]),
        "packages": ", ".join(f"{name} {version}" for name, version in versions.items() if version),
        "fingerprint": values([m.depends_on.get("base") for m in manifests]),
    }
    return {name: value for name, value in said.items() if value}
