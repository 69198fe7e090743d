import os
import re
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
    for name in ("MODE", "DIR", "PROJECT", "SILENT", "DISABLE_CODE", "DISABLE_GIT", "CONSOLE", "INIT_TIMEOUT"):
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


KEY = "f00dfeed" * 5


@pytest.mark.parametrize("host", ["api.wandb.ai", "BASE"], ids=["the host of older versions", "the host of this one"])
def test_online_with_a_login_that_w_and_b_itself_finds(tmp_path: Path, host: str):
    from wandb.sdk.wandb_settings import Settings

    machine = Settings().base_url.removeprefix("https://") if host == "BASE" else host
    (tmp_path / "netrc").write_text(f"machine {machine} login user password {KEY}\n")
    (tmp_path / "netrc").chmod(0o600)
    assert prepare_wandb(tmp_path) == "online"


def test_online_with_a_key(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("WANDB_API_KEY", KEY)
    assert prepare_wandb(tmp_path) == "online"


@pytest.mark.parametrize(
    ("variables", "says"),
    [
        ({"WANDB_MODE": "onlin"}, "WANDB_MODE='onlin' is none of online, offline"),
        ({"WANDB_MODE": "online"}, "WANDB_MODE=online without a login; going on offline"),
        ({"WANDB_API_KEY": "secret"}, "W&B: WANDB_API_KEY invalid: .*; counts as not logged in"),
        ({"WANDB_DIR": "/proc/none/of/it"}, "WANDB_DIR='/proc/none/of/it' cannot be written"),
        ({"WANDB_DIR": __file__}, "WANDB_DIR=.* cannot be written"),
        ({"HOME": __file__}, ""),
        ({"HOME": "/proc/none"}, ""),
    ],
)
def test_what_cannot_be_used_is_one_line(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    variables: dict[str, str],
    says: str,
):
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    assert prepare_wandb(tmp_path / "run") == "offline"
    said = capsys.readouterr().err
    assert re.search(says, said) and said.count("\n") == bool(says) and "secret" not in said
    assert os.environ["WANDB_DIR"] == str(tmp_path / "run") and (tmp_path / "run").is_dir()


@pytest.mark.parametrize("fails", [("online",), ("online", "offline")])
def test_a_training_goes_on_where_w_and_b_does_not(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], fails: tuple[str, ...]
):
    monkeypatch.setenv("WANDB_API_KEY", KEY)
    prepare_wandb(tmp_path)
    trainer, tried = FakeTrainer(), []

    def init(mode: str, **arguments: Any) -> None:
        tried.append((mode, arguments.get("id"), arguments.get("name")))
        if mode in fails:
            raise RuntimeError(f"\n no answer from https://me:{KEY}@proxy:8080\nTraceback")

    monkeypatch.setattr("wandb.init", init)
    monkeypatch.setattr("train.tracking.earlier_curves", object)  # loading the real ones takes seconds
    for _ in range(2):
        os.environ["WANDB_MODE"] = "online"
        begin_tracking(trainer, tmp_path, "demo/instilled", 40)
    said = capsys.readouterr().err
    assert said.count("\n") == 2 * len(fails) and "https://proxy:8080" in said and KEY not in said
    if fails == ("online",):
        assert [name for mode, _, name in tried if mode == "offline"] == [
            "demo/instilled",
            "demo/instilled (start 2, from step 40)",
        ]
        assert len(trainer.callbacks) == 1
    else:
        assert os.environ["WANDB_MODE"] == "disabled" and not trainer.callbacks
    assert all((run_id is None) == (mode != "online") for mode, run_id, _ in tried)


def test_what_the_user_has_set_stays(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("WANDB_MODE", "disabled")
    monkeypatch.setenv("WANDB_DIR", str(tmp_path / "mine"))
    assert prepare_wandb(tmp_path / "default") == "disabled"
    assert (tmp_path / "mine").is_dir() and not (tmp_path / "default").exists()


def test_offline_each_start_is_a_run_of_its_own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    prepare_wandb(tmp_path)
    trainer, begun = FakeTrainer(), []
    monkeypatch.setattr("wandb.init", lambda **arguments: begun.append(arguments))
    for step, name in ((0, "demo/instilled"), (40, "demo/instilled (start 2, from step 40)")):
        begin_tracking(trainer, tmp_path, "demo/instilled", step)
        assert trainer.args.run_name == name
    assert [type(callback).__name__ for callback in trainer.callbacks] == ["EarlierCurves"], (
        "the second repeats the first"
    )
    assert [run["mode"] for run in begun] == ["offline"] * 2 and not any("id" in run for run in begun)


def test_online_all_starts_are_one_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("WANDB_API_KEY", KEY)
    prepare_wandb(tmp_path)
    trainer, begun = FakeTrainer(), []
    monkeypatch.setattr("wandb.init", lambda **arguments: begun.append(arguments))
    (tmp_path / "other").mkdir()
    for folder, step in ((tmp_path, 0), (tmp_path, 40), (tmp_path / "other", 0)):
        begin_tracking(trainer, folder, "demo/instilled", step)
        assert trainer.args.run_name == "demo/instilled" and not trainer.callbacks
    assert {(run["mode"], run["name"], run["resume"]) for run in begun} == {("online", "demo/instilled", "allow")}
    first, again, other = (run["id"] for run in begun)
    assert first == again != other, "two runs of the same name are not mixed"
