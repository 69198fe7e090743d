import os
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from train.tracking import begin_tracking, prepare_wandb


class FakeTrainer:
    def __init__(self) -> None:
        self.args = SimpleNamespace(run_name=None)
        self.callbacks: list[Any] = []

    def add_callback(self, callback: Any) -> None:
        self.callbacks.append(callback)


@pytest.fixture(autouse=True)
def clean_environment(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    for name in [n for n in os.environ if n.startswith("WANDB_")]:
        monkeypatch.delenv(name)
    # setdefault in the code under test would outlive the test
    for name in ("MODE", "DIR", "PROJECT", "SILENT", "DISABLE_CODE", "DISABLE_GIT", "CONSOLE", "RUN_ID", "RESUME"):
        monkeypatch.setenv(f"WANDB_{name}", "x")
        monkeypatch.delenv(f"WANDB_{name}")
    monkeypatch.setenv("NETRC", str(tmp_path / "netrc"))
    monkeypatch.setenv("HOME", str(tmp_path))


def test_who_only_prepares_wandb_does_not_wait_for_torch():
    code = "import sys, train.tracking; print({'torch', 'transformers', 'wandb'} & set(sys.modules))"
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert result.stdout == "set()\n"


def test_offline_without_a_login(tmp_path: Path):
    assert prepare_wandb(tmp_path / "here") == "offline"
    assert os.environ["WANDB_DIR"] == str(tmp_path / "here") and (tmp_path / "here").is_dir()


def test_online_with_a_key_or_a_netrc_entry(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("WANDB_API_KEY", "secret")
    assert prepare_wandb(tmp_path) == "online"
    monkeypatch.delenv("WANDB_API_KEY")
    monkeypatch.delenv("WANDB_MODE")
    (tmp_path / ".netrc").write_text("machine api.wandb.ai login user password secret\n")
    (tmp_path / ".netrc").chmod(0o600)
    assert prepare_wandb(tmp_path) == "online"


def test_what_the_user_has_set_stays(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("WANDB_MODE", "disabled")
    monkeypatch.setenv("WANDB_DIR", str(tmp_path / "mine"))
    assert prepare_wandb(tmp_path / "default") == "disabled"
    assert (tmp_path / "mine").is_dir() and not (tmp_path / "default").exists()


def test_offline_each_start_is_a_run_of_its_own(tmp_path: Path):
    prepare_wandb(tmp_path)
    trainer = FakeTrainer()
    for step, name in ((0, "demo/instilled"), (40, "demo/instilled (start 2, from step 40)")):
        begin_tracking(trainer, tmp_path, "demo/instilled", step)
        assert trainer.args.run_name == name
    assert [type(callback).__name__ for callback in trainer.callbacks] == ["EarlierCurves"], (
        "the second repeats the first"
    )
    assert "WANDB_RUN_ID" not in os.environ and "WANDB_RESUME" not in os.environ


def test_online_all_starts_are_one_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("WANDB_API_KEY", "secret")
    prepare_wandb(tmp_path)
    trainer, ids = FakeTrainer(), []
    for step in (0, 40):
        begin_tracking(trainer, tmp_path, "demo/instilled", step)
        assert trainer.args.run_name == "demo/instilled" and not trainer.callbacks
        ids.append(os.environ.pop("WANDB_RUN_ID"))
        assert os.environ["WANDB_RESUME"] == "allow"
    (tmp_path / "other").mkdir()
    begin_tracking(trainer, tmp_path / "other", "demo/instilled", 0)
    assert ids[0] == ids[1] != os.environ["WANDB_RUN_ID"], "two runs of the same name are not mixed"
