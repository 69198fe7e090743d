"""The record of a run: what is written is what is read, and other versions are refused."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from experiment.launcher import plan_runs
from store.run import FORMAT, JobRecord, RunFolder, RunRecord, read_jobs, read_run, write_jobs, write_run
from support import ROOT
from task.errors import InputError


@pytest.fixture(scope="module", params=["simulated", "variants", "demo", "replication"])
def record(request: pytest.FixtureRequest) -> RunRecord:
    return plan_runs(ROOT / "configs" / "experiments" / f"{request.param}.yaml", Path("runs"))[0].record


def test_what_was_written_is_read(record: RunRecord, tmp_path: Path):
    write_run(tmp_path, record)
    assert read_run(tmp_path) == record
    before = (RunFolder(tmp_path).record).stat().st_mtime_ns
    write_run(tmp_path, record)
    assert RunFolder(tmp_path).record.stat().st_mtime_ns == before, "the same record is not written again"


@pytest.mark.parametrize("edit", [lambda v: v.pop("format"), lambda v: v.update(format=3)], ids=["none", "later"])
def test_another_version_is_refused_in_one_line(record: RunRecord, tmp_path: Path, edit: object):
    write_run(tmp_path, record)
    values = json.loads((tmp_path / "run.json").read_text())
    edit(values)  # type: ignore[operator]
    (tmp_path / "run.json").write_text(json.dumps(values))
    with pytest.raises(InputError, match=rf"run.json: format \d, this version reads {FORMAT}; start ") as caught:
        read_run(tmp_path)
    assert "\n" not in str(caught.value)


def test_a_damaged_record_names_the_key(record: RunRecord, tmp_path: Path):
    values = record.model_dump(mode="json")
    values["gate"] = {"arm": "instilled"}
    (tmp_path / "run.json").write_text(json.dumps(values))
    with pytest.raises(InputError, match=r"run.json: gate.contexts: Field required"):
        read_run(tmp_path)
    (tmp_path / "run.json").write_text("[]")
    with pytest.raises(InputError, match=r"run.json: format None"):
        read_run(tmp_path)


def test_jobs_are_read_as_they_were_noted(tmp_path: Path):
    run = RunFolder(tmp_path)
    assert read_jobs(run) == {}
    jobs = {"evaluate": JobRecord(id="12", stages=["evaluate"], command=["sbatch", "x"])}
    write_jobs(run, jobs)
    assert read_jobs(run) == jobs
    run.jobs.write_text("[]")
    with pytest.raises(InputError, match=r"jobs.json: lists no jobs; delete it"):
        read_jobs(run)
