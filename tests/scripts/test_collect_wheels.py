"""Which packages a machine without registries is given, on a made-up set of packages; nothing is fetched."""

import subprocess
import sys
from pathlib import Path

import pytest

from scripts import collect_wheels
from scripts.collect_wheels import closure, download, lacking, left_out, read_have
from task.errors import InputError

STATED = {
    "torch": ["sympy", "nvidia-nccl-cu13", "triton; sys_platform == 'linux'"],
    "transformers": ["tokenizers>=0.22", "typer"],
    "typer": ["pydantic", "rich", "click"],
    "pydantic": ["pydantic_core==2", "typing-extensions"],
    "trl": ["transformers", "datasets", "rich"],
    "datasets": ["PyArrow", "xxhash", "sympy", "torch; extra == 'torch'", "old; python_version < '3.12'"],
    "rich": ["pygments"],
    "wandb": ["click", "nvidia-ml-py"],
}


def test_what_is_needed_in_turn_is_found_without_extras_and_other_pythons():
    assert closure(["Datasets"], "3.12", STATED.get) == {"datasets", "pyarrow", "xxhash", "sympy"}
    assert "old" in closure(["datasets"], "3.11", STATED.get)


def test_what_the_machine_has_is_left_out():
    found = lacking([], "3.12", STATED.get)
    assert {"trl", "datasets", "pyarrow", "xxhash", "wandb", "pydantic", "pydantic-core", "pygments"} <= {*found}
    # Of torch and transformers, what these need, and NVIDIA's: nothing.
    assert not {*found} & {"torch", "sympy", "triton", "transformers", "tokenizers", "typer", "click"}
    assert not [name for name in found if name.startswith("nvidia")]
    assert {*found} - {*lacking(["PyArrow", "trl"], "3.12", STATED.get)} == {"trl", "pyarrow"}


def test_the_largest_that_nobody_asked_for_are_left_out_first():
    sizes = {"wandb": 20, "pyarrow": 55, "scipy": 35, "trl": 1}
    assert left_out(sizes, 200, ["wandb", "trl"]) == []
    assert left_out(sizes, 60, ["wandb", "trl"]) == ["pyarrow"]
    assert left_out(sizes, 21, ["wandb", "trl"]) == ["pyarrow", "scipy"]
    assert left_out(sizes, 5, ["wandb", "trl"]) == ["pyarrow", "scipy", "wandb"]


def test_the_list_of_what_a_machine_has_is_read(tmp_path: Path):
    (tmp_path / "have.txt").write_text("pandas==3.1.1\n-e git+x\nPyArrow==21\n")
    assert read_have(tmp_path / "have.txt") == ["pandas", "PyArrow"]
    with pytest.raises(InputError, match=r"no such file; write it there with: python3 -m pip list"):
        read_have(tmp_path / "none.txt")


def test_a_failed_download_is_one_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    asked = []

    def run(command: list[str], **_: object) -> subprocess.CompletedProcess[str]:
        asked.append(command)
        return subprocess.CompletedProcess(command, 1, "", "WARNING: x\nERROR: No matching distribution for pandas\n")

    monkeypatch.setattr(collect_wheels.subprocess, "run", run)
    with pytest.raises(InputError, match=r"^pip download failed \(ERROR: No matching .* registry can be reached$"):
        download(["numpy", "no-such-package"], tmp_path, "3.12")
    [command] = asked
    assert command[0] == sys.executable and "--no-deps" in command and "--only-binary=:all:" in command
    assert command[-1] == "no-such-package" and command[-2].startswith("numpy==")


def test_a_folder_that_holds_something_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    (tmp_path / "old.whl").touch()
    monkeypatch.setattr(sys, "argv", ["collect_wheels", str(tmp_path)])
    with pytest.raises(InputError, match="not empty, and wheels of two versions stop an installation"):
        collect_wheels.main()
