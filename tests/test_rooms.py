"""What holds for the project as a whole: which room imports which, what each needs, and that every configuration reads.

The arrows are those of docs/architecture.md.
"""

from __future__ import annotations

import ast
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

from support import ROOT

ALLOWED = {
    "task": {"task"},
    "store": {"task", "store"},
    "train": {"task", "store", "train"},
    "eval": {"task", "store", "eval"},
    "inside": {"task", "store", "inside"},
    "analysis": {"task", "store", "analysis"},
    "experiment": {"task", "store", "train", "eval", "inside", "analysis", "experiment"},
    "scripts": {"task", "store", "train", "eval", "inside", "analysis", "experiment", "scripts"},
}
"""For each room the rooms that it may import."""

WITHIN = {
    "analysis/stats": {"task", "analysis.stats"},
    "analysis/study": {"task", "store", "analysis.stats", "analysis.study"},
    "analysis/pages": {"task", "store", "analysis.stats", "analysis.study", "analysis.pages"},
    "train/trainer": {"task", "store", "train.trainer", "train.safeguards", "train.arguments", "train.tracking"},
    "train/safeguards": {"task", "store", "train.safeguards"},
}
"""For rooms within rooms the modules, by the beginning of their names, that they may import."""


def imported(path: Path) -> set[str]:
    """Full names of the modules that a file imports."""
    found = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module:
            found.add(node.module)
    return found


def files(room: str) -> list[Path]:
    found = sorted((ROOT / room).rglob("*.py"))
    assert found, f"{room} has no files"
    return found


@pytest.mark.parametrize("room", ALLOWED)
def test_rooms_import_only_what_they_may(room: str):
    for path in files(room):
        assert {name.split(".")[0] for name in imported(path)} & {*ALLOWED} <= ALLOWED[room], path


@pytest.mark.parametrize("room", WITHIN)
def test_rooms_within_rooms_import_only_what_they_may(room: str):
    for path in files(room):
        if path.name == "__main__.py":  # a command, like those above
            continue
        ours = {name for name in imported(path) if name.split(".")[0] in ALLOWED}
        strange = {name for name in ours if not any(f"{name}.".startswith(f"{ok}.") for ok in WITHIN[room])}
        assert not strange, f"{path}: {strange}"


def third_party(room: str) -> set[str]:
    names = {name.split(".")[0] for path in files(room) for name in imported(path)}
    return names - {*ALLOWED} - {*sys.stdlib_module_names}


def test_statistics_need_numpy_and_scipy_only():
    assert third_party("analysis/stats") <= {"numpy", "scipy"}


def test_the_task_needs_numpy_only():
    assert third_party("task") == {"numpy"}


def loaded_by(modules: list[str]) -> set[str]:
    """Packages that are loaded once some modules are imported."""
    code = f"import sys, {', '.join(modules)}; print(*{{name.split('.')[0] for name in sys.modules}})"
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd=ROOT)
    return set(result.stdout.split())


@pytest.mark.parametrize(
    ("modules", "never"),
    [
        (["task.prompts", "task.probes", "task.chat"], {"torch", "pandas", "scipy", "pydantic", "pyarrow"}),
        (
            ["store.state", "store.trials", "store.summary", "store.inside_tables"],
            {"torch", "trl", "transformers", "peft", "vllm"},
        ),
        (["analysis.run", "analysis.released"], {"torch", "trl", "transformers", "peft", "vllm", "jax"}),
        (["experiment.launcher"], {"torch", "trl", "transformers", "peft", "vllm", "wandb"}),
    ],
    ids=lambda value: value[0] if isinstance(value, list) else "",
)
def test_what_is_quick_to_start_loads_nothing_slow(modules: list[str], never: set[str]):
    loaded = loaded_by(modules)
    assert "numpy" in loaded and not loaded & never


@pytest.mark.parametrize("path", sorted((ROOT / "configs").rglob("*.yaml")), ids=lambda p: p.name)
def test_every_configuration_parses(path: Path):
    from experiment.file import load_experiment
    from experiment.slurm.site import Site
    from store.model_file import read_model_file
    from store.settings import read_settings

    kind = path.parent.name
    if kind == "experiments":
        experiment = load_experiment(path)
        assert experiment.model is None or (ROOT / experiment.model).is_file()
    elif kind == "models":
        assert read_model_file(path).licence, "every model file names its licence"
    elif kind == "slurm":
        assert read_settings(path, Site)
    else:
        assert isinstance(yaml.safe_load(path.read_text()), dict)


def test_every_model_file_sets_only_arguments_of_the_training():
    from store.model_file import read_model_file
    from train.arguments import known_arguments

    for path in (ROOT / "configs" / "models").glob("*.yaml"):
        model = read_model_file(path)
        assert not {*model.training("decisions"), *model.training("reports")} - known_arguments(), path
