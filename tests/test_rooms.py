"""What holds for the project as a whole: which room imports which, and that the README's commands exist."""

import ast
import re
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

from support import ROOT

ROOMS = ("task", "train", "eval", "analysis", "scripts")
ALLOWED = {
    "task": {"task"},
    "train": {"task", "train"},
    "eval": {"task", "eval"},
    "analysis": {"task", "analysis"},
    "scripts": set(ROOMS),
}


def imported(path: Path) -> set[str]:
    found = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            found |= {alias.name.split(".")[0] for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module:
            found.add(node.module.split(".")[0])
    return found


@pytest.mark.parametrize("room", ROOMS)
def test_rooms_import_only_what_they_may(room: str):
    for path in (ROOT / room).rglob("*.py"):
        assert imported(path) & set(ROOMS) <= ALLOWED[room], path


def loaded_by(module: str) -> set[str]:
    code = f"import sys, {module}; print(*{{name.split('.')[0] for name in sys.modules}})"
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    return set(result.stdout.split())


def test_the_analysis_needs_neither_torch_nor_trl():
    loaded = loaded_by("analysis.run")
    assert "pandas" in loaded and not loaded & {"torch", "trl", "transformers", "peft", "vllm"}


def test_the_task_needs_numpy_only():
    modules = ", ".join(f"task.{p.stem}" for p in (ROOT / "task").glob("*.py") if p.stem != "__init__")
    assert not loaded_by(modules) & {"torch", "pandas", "scipy", "pydantic", "pyarrow", "huggingface_hub"}


README = (ROOT / "README.md").read_text(encoding="utf-8")


def test_every_path_in_the_readme_exists():
    quoted = set(re.findall(r"(?:train|eval|analysis|configs|scripts|tests|task|results|docs)/[\w./-]*\w", README))
    assert quoted, "the README names no path"
    assert not [path for path in sorted(quoted) if not (ROOT / path).exists()]


def test_every_module_run_in_the_readme_exists():
    modules = set(re.findall(r"python -m ((?:train|eval|analysis|task|scripts)\.[\w.]+)", README))
    assert modules and all((ROOT / (m.replace(".", "/") + ".py")).is_file() for m in modules)


def test_every_make_target_in_the_readme_exists():
    targets = set(re.findall(r"make (\w+)", README))
    makefile = (ROOT / "Makefile").read_text()
    assert {"demo", "test"} <= targets
    assert all(re.search(rf"^{target}:", makefile, re.MULTILINE) for target in targets)


def test_every_option_of_run_experiment_in_the_readme_exists():
    command = [sys.executable, "scripts/run_experiment.py", "--help"]
    known = set(re.findall(r"--[a-z-]+", subprocess.run(command, cwd=ROOT, capture_output=True, text=True).stdout))
    quoted = re.findall(r"run_experiment\.py[^\n`#]*", README)
    assert {"--dry-run", "--launcher", "--status"} <= known
    assert {option for line in quoted for option in re.findall(r"--[a-z-]+", line)} <= known


@pytest.mark.parametrize("path", sorted((ROOT / "configs").rglob("*.yaml")), ids=lambda p: p.name)
def test_every_configuration_parses(path: Path):
    from experiment.file import Experiment
    from store.model_file import ModelFile
    from experiment.slurm.site import Site
    from store.settings import read_settings

    kinds = {"experiments": Experiment, "models": ModelFile, "slurm": Site}
    if path.parent.name in kinds:
        settings = read_settings(path, kinds[path.parent.name])
        if isinstance(settings, Experiment) and settings.model:
            assert Path(ROOT / settings.model).is_file()
    else:
        assert isinstance(yaml.safe_load(path.read_text()), dict)


def test_every_model_file_sets_only_arguments_of_the_training():
    from store.model_file import ModelFile
    from store.settings import read_settings
    from train.arguments import known_arguments

    for path in (ROOT / "configs" / "models").glob("*.yaml"):
        model = read_settings(path, ModelFile)
        assert not {*model.sft, *model.decisions, *model.reports} - known_arguments(), path
