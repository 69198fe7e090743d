"""The doctor under made-up conditions: every problem is found and has a remedy, and no token is ever shown."""

import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import psutil
import pytest
import torch
from huggingface_hub import constants

from experiment import doctor
from support import ROOT

TOKEN = "hf_aVerySecretToken"
KEY = "0123456789abcdef0123456789abcdef01234567"


@pytest.fixture(autouse=True)
def a_healthy_machine(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Logged in everywhere, no GPU, no SLURM, the Hub within reach; the tests take away or add one thing each."""
    monkeypatch.setenv("HF_TOKEN", TOKEN)
    monkeypatch.setenv("WANDB_API_KEY", KEY)
    monkeypatch.delenv("WANDB_MODE", raising=False)
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
    monkeypatch.setattr(doctor.socket, "create_connection", lambda *a, **k: SimpleNamespace(close=lambda: None))
    monkeypatch.setattr(doctor.shutil, "which", lambda name: None)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    monkeypatch.setattr(psutil, "virtual_memory", lambda: SimpleNamespace(available=16e9))
    monkeypatch.setattr(doctor.shutil, "disk_usage", lambda path: SimpleNamespace(free=100e9))


def findings(about: str) -> list[doctor.Finding]:
    return [finding for finding in doctor.examine() if finding.about == about]


def a_gpu(monkeypatch: pytest.MonkeyPatch, gigabytes: float, bf16: bool = True) -> None:
    device = SimpleNamespace(name="NVIDIA Test", total_memory=gigabytes * 1e9)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 1)
    monkeypatch.setattr(torch.cuda, "get_device_properties", lambda index: device)
    monkeypatch.setattr(torch.cuda, "is_bf16_supported", lambda: bf16)


def test_a_healthy_machine_has_no_problem(capsys: pytest.CaptureFixture[str]):
    with pytest.raises(SystemExit) as ended:
        doctor.main()
    shown = capsys.readouterr().out
    assert ended.value.code == 0 and shown.endswith("0 problems\n"), shown
    assert "reachable, logged in" in shown and "online, logged in" in shown
    assert TOKEN not in shown and KEY not in shown
    assert "configs/accelerate/cpu.yaml" in shown and "engine auto is transformers" in shown


def break_packages(monkeypatch: pytest.MonkeyPatch) -> None:
    real = doctor.importlib.metadata.version
    monkeypatch.setattr(doctor.importlib.metadata, "version", lambda name: "1.0" if name == "trl" else real(name))


def break_slurm(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(doctor.shutil, "which", lambda name: "/bin/sbatch" if name == "sbatch" else None)

    def refuse(command: list[str], **options: Any) -> None:
        raise subprocess.CalledProcessError(1, command, stderr="slurm_load_partitions: refused\nmore")

    monkeypatch.setattr(doctor.subprocess, "run", refuse)


BREAKS: dict[str, Any] = {
    "packages": break_packages,
    "gpu": lambda m: m.setattr(doctor.shutil, "which", lambda name: "/bin/x" if name == "nvidia-smi" else None),
    "memory": lambda m: m.setattr(psutil, "virtual_memory", lambda: SimpleNamespace(available=1e9)),
    "disk": lambda m: m.setattr(doctor.shutil, "disk_usage", lambda path: SimpleNamespace(free=1e9)),
    "wandb": lambda m: (m.delenv("WANDB_API_KEY"), m.setenv("WANDB_MODE", "online"), m.setenv("NETRC", "/nowhere")),
    "slurm": break_slurm,
}


@pytest.mark.parametrize("about", BREAKS)
def test_a_problem_is_found_with_its_remedy(about: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path):
    monkeypatch.setenv("HOME", str(tmp_path))  # where a login might be
    BREAKS[about](monkeypatch)
    [found] = findings(about)
    assert found.state == "problem" and found.remedy, found
    assert about != "slurm" or "(slurm_load_partitions: refused)" in found.text
    with pytest.raises(SystemExit) as ended:
        doctor.main()
    assert ended.value.code == 1


def test_what_is_wrong_with_the_packages_is_said(monkeypatch: pytest.MonkeyPatch):
    break_packages(monkeypatch)
    [found] = findings("packages")
    assert found.text == "trl is 1.0, needed ==1.16.0" and "requirements-cpu.txt" in found.remedy


def test_a_package_that_cannot_be_loaded_is_a_problem(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setitem(sys.modules, "psutil", None)
    [found] = findings("memory")
    assert found.state == "problem" and "psutil" in found.text and found.remedy == "make env"


def test_states_that_limit_nothing_are_notes(monkeypatch: pytest.MonkeyPatch, tmp_path: Path):
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("NETRC", str(tmp_path / "netrc"))
    monkeypatch.delenv("WANDB_API_KEY")

    def unreachable(*address: Any, **options: Any) -> None:
        raise OSError("no route")

    monkeypatch.setattr(doctor.socket, "create_connection", unreachable)
    states = {about: [f.state for f in findings(about)] for about in ("gpu", "hub", "wandb", "slurm")}
    assert all(state == ["note"] for state in states.values()), states
    assert "no route" in findings("hub")[0].text
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    assert "HF_HUB_OFFLINE" in findings("hub")[0].text


@pytest.mark.parametrize(("gigabytes", "has", "lacks"), [(25.4, "qwen3-8b", "qwen3-32b"), (85.0, "qwen3-32b", "")])
def test_models_are_recommended_by_the_gpu(monkeypatch: pytest.MonkeyPatch, gigabytes: float, has: str, lacks: str):
    a_gpu(monkeypatch, gigabytes)
    assert [f.text for f in findings("gpu")] == [f"NVIDIA Test, {gigabytes:.0f} GB"]
    text = "; ".join(f.text for f in findings("models"))
    assert has in text and (not lacks or lacks not in text)
    assert "single_gpu.yaml" in findings("training")[0].text


def test_partitions_with_their_gpus(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(doctor.shutil, "which", lambda name: "/bin/sbatch" if name == "sbatch" else None)
    answer = SimpleNamespace(
        returncode=0, stderr="", stdout="gpu* 2-00:00:00 gpu:a100:4(S:0-1)\nlong infinite (null)\n"
    )
    monkeypatch.setattr(doctor.subprocess, "run", lambda *a, **k: answer)
    assert [(f.state, f.text) for f in findings("slurm")] == [
        ("ok", "run_experiment.py --launcher slurm submits jobs"),
        ("ok", "partition gpu (default): gpu:a100:4(S:0-1), up to 2-00:00:00"),
        ("ok", "partition long: no GPU, up to infinite"),
    ]


def test_old_and_small_gpus(monkeypatch: pytest.MonkeyPatch):
    a_gpu(monkeypatch, 11.8, bf16=False)
    assert findings("gpu")[0].state == "problem" and "no bfloat16" in findings("gpu")[0].text
    assert findings("models")[0].state == "note" and "12 GB" in findings("models")[0].text


def test_a_python_without_anything_is_told_what_to_do():
    result = subprocess.run([sys.executable, "-S", "scripts/doctor.py"], cwd=ROOT, capture_output=True, text=True)
    assert result.returncode == 1 and "Python 3.11 or newer: make env" in result.stderr
    assert "Traceback" not in result.stderr


def test_an_installed_copy_has_no_requirements_to_compare_with(monkeypatch: pytest.MonkeyPatch, tmp_path: Path):
    monkeypatch.setattr(doctor, "ROOT", tmp_path)
    assert [f.state for f in findings("packages")] == ["note"]


def test_the_command_itself():
    """On this machine, whatever it is: one line a finding, exit status as counted."""
    result = subprocess.run([sys.executable, "scripts/doctor.py"], cwd=ROOT, capture_output=True, text=True)
    last = result.stdout.splitlines()[-1]
    assert result.returncode == (0 if last == "0 problems" else 1), result.stderr
    assert "Traceback" not in result.stderr
