"""What SLURM says of jobs: which are in the queue, and what became of others."""

from __future__ import annotations

import shutil
import subprocess
from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from task.errors import InputError

LIVE = {"PENDING", "RUNNING", "CONFIGURING", "COMPLETING", "SUSPENDED", "REQUEUED", "REQUEUE_HOLD", "RESIZING"}
"""States of a job that has not ended."""

SECONDS = 30
"""How long SLURM may take to answer."""


@dataclass(frozen=True)
class QueuedJob:
    """A job, or some tasks of an array job, as squeue lists them.

    Attributes:
        id: As sbatch printed it, the same for all tasks of an array.
        state: e.g. `RUNNING`.
        reason: Why it waits, `None` where it does not.
        name: Its name.
        comment: What was noted with it when it was submitted.
    """

    id: str
    state: str
    reason: str
    name: str
    comment: str

    @property
    def live(self) -> bool:
        """Whether it waits or runs."""
        return self.state in LIVE


def queued_jobs() -> list[QueuedJob]:
    """This user's jobs that wait, run, or ended a short time ago.

    Raises:
        InputError: There is no SLURM here, or it does not answer.
    """
    fields = ("%F", "%T", "%r", "%j", "%k")
    text = _ask("squeue", "--me", "--noheader", "--states=all", "--format=" + "|".join(fields))
    # The comment comes last: it may hold the separator itself.
    return [QueuedJob(*map(str.strip, line.split("|", len(fields) - 1))) for line in text.splitlines() if line.strip()]


def job_states(ids: Iterable[str]) -> dict[str, str]:
    """What SLURM knows of some jobs, in words: from the queue, else from its accounting, where it keeps one."""
    wanted, states = set(ids), dict[str, Counter[str]]()
    for job in queued_jobs():
        if job.id in wanted:
            waiting = f" ({job.reason})" if job.state == "PENDING" and job.reason != "None" else ""
            states.setdefault(job.id, Counter())[job.state + waiting] += 1
    return {id_: _in_words(found) for id_, found in {**_accounted(wanted - set(states)), **states}.items()}


def cancel(ids: Iterable[str]) -> None:
    """End jobs; one that has ended by itself is no error."""
    if wanted := list(ids):
        subprocess.run(["scancel", *wanted], capture_output=True, timeout=SECONDS)


def _accounted(ids: set[str]) -> dict[str, Counter[str]]:
    states: dict[str, Counter[str]] = {}
    if not ids:
        return states
    try:
        text = _ask("sacct", "-X", "--noheader", "--parsable2", "--format=JobID,State", f"--jobs={','.join(ids)}")
    except InputError:  # not every cluster keeps an account
        return states
    for line in text.splitlines():
        job, _, state = line.partition("|")
        states.setdefault(job.partition("_")[0], Counter())[state.partition(" ")[0]] += 1
    return states


def _in_words(states: Mapping[str, int]) -> str:
    several = sum(states.values()) > 1
    return ", ".join(f"{count} {state}" if several else state for state, count in sorted(states.items()))


def _ask(*command: str) -> str:
    if shutil.which(command[0]) is None:
        raise InputError(f"no {command[0]} here; run this where SLURM jobs can be submitted, or use --launcher local")
    try:
        answer = subprocess.run(command, capture_output=True, text=True, timeout=SECONDS)
    except subprocess.TimeoutExpired:
        raise InputError(f"{command[0]}: no answer in {SECONDS} s; try again when SLURM is back") from None
    if answer.returncode:
        reason = answer.stderr.strip().partition("\n")[0].removeprefix(f"{command[0]}: ") or "failed"
        raise InputError(f"{command[0]}: {reason}; try again when SLURM answers")
    return answer.stdout
