"""The chain on a real SLURM, from submission to report: requeued in training and in evaluation, it ends the same."""

import re
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import pytest
import yaml

from experiment import doctor
from slurm_cluster import Cluster, missing
from store.manifests import TrainingFacts, read_manifest
from store.run import RunFolder, read_jobs
from store.summary import read_summary
from support import ROOT, experiment_command, run_experiment

pytestmark = [
    pytest.mark.alone,  # a job that cannot be launched in time is held by SLURM
    pytest.mark.skipif(missing() is not None, reason=f"no SLURM to start: {missing()}"),
    pytest.mark.timeout(1200),  # the first test waits for the whole chain and for the run that it is held against
]

SIMULATED = ROOT / "configs" / "experiments" / "simulated.yaml"
ARMS_AFTER = ("introspection_fold_1", "introspection_fold_2", "introspection_all")
"""What starts from the instilled arm."""


@pytest.fixture(scope="module")
def cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cluster]:
    """Two nodes of one core each: as many jobs at a time as the machines of CI have cores."""
    with Cluster(tmp_path_factory.mktemp("slurm") / "cluster", nodes=2, cpus=1) as running:
        running.environment["WANDB_MODE"] = "offline"
        yield running


def write_site(folder: Path, **more: Any) -> Path:
    """A site without GPUs, whose logs go to a folder."""
    values = {
        "options": [f"--output={folder}/%x-%j.out"],
        "train": {"cpus": 1, "time": "00:30:00", **more.pop("train", {})},
        "evaluate": {"cpus": 1, "parts": 2, **more.pop("evaluate", {})},
        "analyse": {"cpus": 1},
        **more,
    }
    (folder / "site.yaml").write_text(yaml.safe_dump(values))
    return folder / "site.yaml"


def slurm_command(experiment: Path, runs: Path, site: Path) -> list[str]:
    return experiment_command(experiment, runs, "--launcher", "slurm", "--site", str(site))


def status(cluster: Cluster, experiment: Path, runs: Path) -> dict[str, str]:
    """What --status says of each stage."""
    result = cluster.run(*experiment_command(experiment, runs, "--status"))
    assert result.returncode == 0, result.stderr
    head, *lines = result.stdout.splitlines()[1:]
    assert head.split() == ["stage", "stands", "jobs"]
    return {line.split()[0]: " ".join(line.split()[1:]) for line in lines}


def jobs(run: Path) -> dict[str, str]:
    return {name: job.id for name, job in read_jobs(RunFolder(run)).items()}


def ended(cluster: Cluster) -> bool:
    return not cluster.run("squeue", "--noheader").stdout


def shown(cluster: Cluster, job: str) -> str:
    return cluster.run("scontrol", "show", "job", job).stdout


class Chain(NamedTuple):
    """A chain that was requeued twice: its run, its logs, and what was said on the way."""

    run: Path
    logs: Path
    submitted: str
    meanwhile: dict[str, str]
    refused: subprocess.CompletedProcess[str]
    restarted: dict[str, str]
    after: dict[str, str]
    again: subprocess.CompletedProcess[str]


@pytest.fixture(scope="module")
def chain(cluster: Cluster, tiny_experiment: Path, tmp_path_factory: pytest.TempPathFactory) -> Chain:
    folder = tmp_path_factory.mktemp("chain")
    site = write_site(folder)
    submit = slurm_command(tiny_experiment, folder / "runs", site)
    submitted = cluster.run(*submit)
    assert submitted.returncode == 0, submitted.stderr
    run = folder / "runs" / "tiny-seed0"
    ids, trials = jobs(run), run / "trials"

    # One training is requeued between two checkpoints, as a preemption does it
    cluster.wait(lambda: any((run / "adapters" / "instilled").glob("checkpoint-*/trainer_state.json")), 200)
    assert cluster.run("scontrol", "requeue", ids["instilled.sft"]).returncode == 0
    assert not (run / "adapters" / "instilled" / "manifest.json").exists()
    meanwhile = status(cluster, tiny_experiment, folder / "runs")
    refused = cluster.run(*submit)

    # One part of the evaluation hears that its time is running out, and requeues itself
    cluster.wait(lambda: any(n % 2 == 0 for n in shards(trials / "off_the_shelf" / "decisions")), 400)
    task = f"{ids['evaluate']}_1"
    assert cluster.run("scancel", "--batch", "--signal=USR1", task).returncode == 0
    cluster.wait(lambda: "Restarts=1" in shown(cluster, task), 20)
    restarted = {name: shown(cluster, job) for name, job in (("training", ids["instilled.sft"]), ("part", task))}
    cluster.wait(lambda: ended(cluster), 200)
    after = status(cluster, tiny_experiment, folder / "runs")
    return Chain(run, folder, submitted.stdout, meanwhile, refused, restarted, after, cluster.run(*submit))


def shards(folder: Path) -> list[int]:
    return [int(path.stem) for path in folder.glob("shards/*.parquet")]


def log_of(chain: Chain, name: str) -> str:
    return "".join(path.read_text() for path in chain.logs.glob(f"tiny-seed0.{name}-*.out"))


def test_it_ends_as_the_run_that_nothing_interrupted(chain: Chain, straight: Path):
    paths = [*straight.rglob("adapter_model.safetensors"), *straight.rglob("trials.parquet")]
    assert len(paths) == 4 + 10
    for path in paths:
        assert (chain.run / path.relative_to(straight)).read_bytes() == path.read_bytes(), path
    one, other = (read_summary(run / "analysis" / "summary.json") for run in (chain.run, straight))
    assert one.key == other.key
    assert (chain.run / "analysis" / "report.html").stat().st_size > 10_000


def test_the_training_resumed_from_its_checkpoint(chain: Chain):
    log = log_of(chain, "instilled.sft")
    assert "Restarts=1" in chain.restarted["training"] and "DUE TO JOB REQUEUE" in log
    assert re.search(r"resuming from .*/adapters/instilled/checkpoint-\d+", log)
    assert log.index("adapter saved after 10 steps") > log.index("resuming from")


def test_the_part_requeued_itself_and_kept_its_shards(chain: Chain):
    log = log_of(chain, "evaluate")
    assert "Restarts=1" in chain.restarted["part"]
    assert "is requeued before its time limit" in log and "DUE TO JOB REQUEUE" in log
    assert len(re.findall(r"part \d/2 of .*: done", log)) == 2


def test_arms_side_by_side_wait_for_nothing_but_their_start(chain: Chain):
    ids = jobs(chain.run)
    printed = re.findall(r"^(\d+) +(\S+?)(?: \(2 parts\))? +([\d ]*?) *$", chain.submitted, re.MULTILINE)
    first = ids["instilled.sft"]
    trainings = " ".join(ids[f"{arm}.sft"] for arm in ("instilled", *ARMS_AFTER))
    assert [(name, after) for _, name, after in printed] == [
        *[("instilled.sft", ""), *((f"{arm}.sft", first) for arm in ARMS_AFTER), ("evaluate", trainings)],
        *[("evaluate.merge", ids["evaluate"]), ("analyse", ids["evaluate.merge"])],
    ]
    assert {name: job for job, name, _ in printed} == ids


def test_it_is_not_submitted_twice(chain: Chain):
    assert chain.refused.returncode == 2 and len(chain.refused.stderr.splitlines()) == 1
    assert re.search(r"error: .*tiny-seed0: \d jobs of this run wait or run .* scancel \d+", chain.refused.stderr)
    assert chain.again.returncode == 0 and "nothing to submit" in chain.again.stdout


def test_status_while_a_training_is_requeued_and_after_the_end(chain: Chain):
    first = jobs(chain.run)["instilled.sft"]
    assert chain.meanwhile["instilled.examples"].startswith(f"finished {first}")
    assert re.match(r"(interrupted|under way): checkpoint at step \d+ of 16", chain.meanwhile["instilled.sft"])
    assert re.match(r"missing \d+ PENDING \(Dependency\)", chain.meanwhile["introspection_all.sft"])
    assert re.match(r"missing \d+ PENDING \(Dependency\)", chain.meanwhile["evaluate"])
    assert all(says.startswith("finished") for says in chain.after.values()) and len(chain.after) == 4 * 2 + 3
    assert re.fullmatch(r"finished \d+ 2 COMPLETED; \d+ merge COMPLETED", chain.after["evaluate"])
    assert re.fullmatch(r"finished \d+ COMPLETED", chain.after["analyse"])


def test_a_failed_job_ends_the_chain_and_the_same_command_goes_on(cluster: Cluster, tmp_path: Path):
    experiment = yaml.safe_load(SIMULATED.read_text())
    experiment["contexts"]["instilled"]["count"] = experiment["contexts"]["native"]["count"] = 6
    (tmp_path / "small.yaml").write_text(yaml.safe_dump(experiment))
    runs = tmp_path / "runs"
    failing = write_site(tmp_path, setup=['if [[ $SLURM_JOB_NAME == *merge ]]; then echo "no such disk"; exit 3; fi'])
    assert cluster.run(*slurm_command(tmp_path / "small.yaml", runs, failing)).returncode == 0
    cluster.wait(lambda: ended(cluster), 60)
    found = status(cluster, tmp_path / "small.yaml", runs)
    assert re.match(r"interrupted: (\d+) of \1 shards \d+ 2 COMPLETED", found["evaluate"])
    assert re.match(r"missing \d+ CANCELLED", found["analyse"])
    assert cluster.run(*slurm_command(tmp_path / "small.yaml", runs, write_site(tmp_path))).returncode == 0
    cluster.wait(lambda: ended(cluster), 60)
    assert run_experiment(tmp_path / "small.yaml", tmp_path / "local").returncode == 0
    for path in (tmp_path / "local").rglob("trials.parquet"):
        assert (runs / path.relative_to(tmp_path / "local")).read_bytes() == path.read_bytes()
    assert (runs / "simulated-seed0" / "analysis" / "report.html").is_file()


def test_two_nodes_train_one_adapter(cluster: Cluster, tiny_experiment: Path, straight: Path, tmp_path: Path):
    site = write_site(tmp_path, train={"nodes": 2})
    assert cluster.run(*slurm_command(tiny_experiment, tmp_path / "runs", site)).returncode == 0
    run = tmp_path / "runs" / "tiny-seed0"
    adapter, first = run / "adapters" / "instilled", jobs(run)["instilled.sft"]
    both = [adapter / "checkpoint-2" / f"rng_state_{rank}.pth" for rank in (0, 1)]
    cluster.wait(lambda: all(path.exists() for path in both), 200)
    assert "NumNodes=2 " in shown(cluster, first)
    cluster.wait((adapter / "manifest.json").exists, 200)
    cluster.run("scancel", *(job for job in jobs(run).values() if job != first))
    cluster.wait(lambda: ended(cluster), 60)
    one, other = (read_manifest(f, TrainingFacts) for f in (adapter, straight / "adapters" / "instilled"))
    assert one.depends_on == other.depends_on and one.facts.steps == other.facts.steps
    assert one.facts.metrics["eval_loss"] == pytest.approx(other.facts.metrics["eval_loss"], rel=1e-3)


def test_the_committed_site_is_accepted(cluster: Cluster, tiny_experiment: Path, tmp_path: Path):
    values = yaml.safe_load((ROOT / "configs" / "slurm" / "site.yaml").read_text())
    (tmp_path / "site.yaml").write_text(yaml.safe_dump({**values, "partition": "gpu"}))
    result = cluster.run(*slurm_command(tiny_experiment, tmp_path / "runs", tmp_path / "site.yaml"))
    assert result.returncode == 0, result.stderr
    ids = jobs(tmp_path / "runs" / "tiny-seed0")
    asked = {name: shown(cluster, job) for name, job in ids.items()}
    cluster.run("scancel", *ids.values())
    for name in ("instilled.sft", "evaluate"):
        assert "gres:gpu:1" in asked[name] and "NumNodes=1" in asked[name] and "Requeue=1" in asked[name]
    assert "TimeLimit=12:00:00" in asked["instilled.sft"] and "gres:gpu" not in asked["analyse"]
    assert "ArrayTaskId=1-4" in asked["evaluate"]


def test_the_doctor_says_what_the_partitions_offer(cluster: Cluster, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("SLURM_CONF", cluster.environment["SLURM_CONF"])
    first, tests, gpu = [finding.text for finding in doctor.check_slurm()]
    assert first == "run_experiment.py --launcher slurm submits jobs"
    assert tests == "partition tests (default): no GPU, up to infinite"
    assert gpu.startswith("partition gpu: ")  # GPUs of nodes that have never been up are shown or not


def test_nothing_is_left_of_a_cluster(tmp_path: Path):
    with Cluster(tmp_path / "cluster") as running:
        running.run("sbatch", "--output=/dev/null", "--wrap=sleep 300")
        running.wait(lambda: running.run("squeue", "-h", "-o", "%T").stdout == "RUNNING\n", 20)
    ours = [p for p in Path("/proc").glob("[0-9]*/environ") if str(tmp_path).encode() in read(p)]
    assert not ours


def read(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError:  # it has just ended
        return b""
