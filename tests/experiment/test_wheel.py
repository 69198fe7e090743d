"""The wheel, installed elsewhere: configurations, contexts, templates and the model organism are found from it."""

import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from store.manifests import ExampleFacts, read_manifest
from support import ROOT

ROOMS = ("task", "store", "train", "eval", "inside", "analysis", "experiment", "scripts", "configs", "models/organism")
ELSEWHERE = ("*.egg-info", "__pycache__", "build", "smollm2-135m-instruct", "smollm2-135m-settled", "*.pyc")


@pytest.fixture(scope="module")
def installed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Where a wheel was installed that was built from a copy of the source."""
    source, wheels, target = (tmp_path_factory.mktemp(name) for name in ("source", "wheels", "installed"))
    for name in ("pyproject.toml", "README.md", "LICENSE"):
        shutil.copy(ROOT / name, source)
    for room in ROOMS:
        shutil.copytree(ROOT / room, source / room, ignore=shutil.ignore_patterns(*ELSEWHERE))
    pip = [sys.executable, "-m", "pip", "--quiet", "--disable-pip-version-check"]
    build = [*pip, "wheel", "--no-deps", "--no-build-isolation", "--wheel-dir", str(wheels), str(source)]
    subprocess.run(build, check=True)
    [wheel] = wheels.glob("*.whl")
    subprocess.run([*pip, "install", "--no-deps", "--no-index", "--target", str(target), str(wheel)], check=True)
    return target


def run(installed: Path, folder: Path, *arguments: str) -> str:
    """What Python prints in an empty folder, with the installed copy in front of the checkout."""
    environment = {**os.environ, "PYTHONPATH": str(installed)}
    command = [sys.executable, "-P", *arguments]
    result = subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True)
    assert result.returncode == 0, result.stderr
    return result.stdout


def files(folder: Path) -> Iterator[str]:
    return (
        path.relative_to(folder).as_posix()
        for room in ROOMS
        for path in (folder / room).rglob("*")
        if path.is_file() and "__pycache__" not in path.parts
    )


def test_every_file_of_the_rooms_is_in_the_wheel(installed: Path):
    assert {*files(ROOT)} == {*files(installed)}


def test_the_demo_is_planned_and_its_first_stage_runs_from_the_wheel(installed: Path, tmp_path: Path):
    where = run(installed, tmp_path, "-c", "import task, store, experiment; print(task.__file__, experiment.__file__)")
    assert where.split() == [str(installed / room / "__init__.py") for room in ("task", "experiment")]
    demo = ["-m", "scripts.run_experiment", "configs/experiments/demo.yaml"]
    assert "instilled.examples" in run(installed, tmp_path, *demo, "--dry-run")
    assert not (tmp_path / "runs").exists()
    run(installed, tmp_path, *demo, "--only", "instilled.examples")
    [begun] = (tmp_path / "runs").iterdir()
    examples = begun / "examples" / "instilled"
    facts = read_manifest(examples, ExampleFacts).facts
    for name, rows in (("train", facts.train), ("validation", facts.validation)):
        assert rows > 0 and len((examples / f"{name}.jsonl").read_text().splitlines()) == rows
    shutil.rmtree(examples)
    run(installed, tmp_path, "-m", "experiment.stage", str(begun), "instilled.examples")
    assert read_manifest(examples, ExampleFacts).facts == facts


def test_the_model_organism_is_found_from_the_wheel(installed: Path, tmp_path: Path):
    code = "from store.models import model_folder; print(model_folder('models/organism'))"
    assert run(installed, tmp_path, "-c", code).strip() == str(installed / "models" / "organism")
