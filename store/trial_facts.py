"""What the manifest of a trial file says: how the trials turned out, in counts and means."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from store.files import hash_file
from store.manifests import Answering, DecisionFacts, ReportFacts
from store.trials import TRIALS, TrialColumns, decided_in, letter_mass
from task.errors import InputError


def trial_facts(folder: Path, columns: TrialColumns, answering: Answering) -> DecisionFacts | ReportFacts:
    """What a manifest says of a trial file: how the trials turned out, and the file's hash."""
    wanted = ["letter", "logp_a", "logp_b", "top_is_letter"]
    if columns.measure == "reports":
        wanted = ["reason", "outside", *(["opening", "free_sampled", "free_reason"] if columns.constrained else [])]
    try:
        table = pq.read_table(folder / TRIALS, columns=wanted)
    except (pa.ArrowException, OSError) as error:
        raise InputError(f"{folder / TRIALS}: cannot be read ({error}); measure it again with --overwrite") from None
    facts = _decision_facts if columns.measure == "decisions" else _report_facts
    return facts(table, columns, answering, hash_file(folder / TRIALS))


def _decision_facts(table: pa.Table, columns: TrialColumns, answering: Answering, content: str) -> DecisionFacts:
    decided = decided_in(table)
    letters = table["letter"].drop_null().to_pylist()
    return DecisionFacts(
        rows=len(table),
        share_a=round(letters.count("A") / len(letters), 4) if letters else None,
        mean_letter_mass=round(float(letter_mass(decided).mean()), 4),
        undecided=dict(Counter(sorted(missing for missing in decided.undecided if missing))),
        content=content,
        answering=answering,
    )


def _report_facts(table: pa.Table, columns: TrialColumns, answering: Answering, content: str) -> ReportFacts:
    unreadable = Counter(sorted(table["reason"].drop_null().to_pylist()))
    facts = ReportFacts(
        rows=len(table),
        readable=len(table) - unreadable.total(),
        unreadable=dict(unreadable),
        outside=table["outside"].to_pylist().count(True),
        constrained=columns.constrained,
        content=content,
        answering=answering,
    )
    if not columns.constrained:
        return facts
    free = table["free_sampled"].to_pylist().count(True)
    more = {
        "mean_opening": round(float(np.mean(table["opening"])), 4),
        "free_total": free,
        "free_readable": free - len(table["free_reason"].drop_null()),
    }
    return facts.model_copy(update=more)
