"""Model files inherit: what a file says prevails, the rest comes from the one that it extends."""

import re
from pathlib import Path

import pytest

from store.model_file import ModelFile, read_model_file
from store.paths import ROOT, project_file
from task.errors import InputError

BASE = """
dtype: bfloat16
row_tokens: 512
gpus:
  24: {decisions: 8, reports: 4, gradient_checkpointing: true}
  80: {decisions: 16, reports: 8}
sft: {lora_r: 32, lora_target_modules: [q_proj, k_proj], warmup_steps: 20}
decisions: {learning_rate: 1.0e-4}
"""
OWN = """
extends: defaults/base.yaml
name: some/model
gpus:
  24: {decisions: 2}
sft: {lora_target_modules: [v_proj], warmup_steps: 5}
reports: {warmup_steps: 0}
"""


def write(folder: Path, own: str = OWN, base: str = BASE) -> Path:
    (folder / "defaults").mkdir(exist_ok=True)
    (folder / "defaults" / "base.yaml").write_text(base)
    (folder / "own.yaml").write_text(own)
    return folder / "own.yaml"


def test_a_file_overrides_and_inherits(tmp_path: Path):
    model = read_model_file(write(tmp_path))
    assert model == ModelFile.model_validate(
        {
            "name": "some/model",
            "dtype": "bfloat16",
            "row_tokens": 512,
            "gpus": {
                24: {"decisions": 2, "reports": 4, "gradient_checkpointing": True},
                80: {"decisions": 16, "reports": 8},
            },
            "sft": {"lora_r": 32, "lora_target_modules": ["v_proj"], "warmup_steps": 5},
            "decisions": {"learning_rate": 1e-4},
            "reports": {"warmup_steps": 0},
        }
    )
    assert model.training("reports") == {"lora_r": 32, "lora_target_modules": ["v_proj"], "warmup_steps": 0}
    assert model.training("decisions")["warmup_steps"] == 5


def test_a_base_may_build_on_another_one(tmp_path: Path):
    path = write(tmp_path, base="extends: first.yaml\nrow_tokens: 300\n")
    first = "row_tokens: 100\ndtype: float16\nsft: {lora_r: 8}\ngpus: {24: {decisions: 1, reports: 1}}\n"
    (tmp_path / "defaults" / "first.yaml").write_text(first)
    model = read_model_file(path)
    assert (model.row_tokens, model.dtype, model.sft["lora_r"], model.sft["warmup_steps"]) == (300, "float16", 8, 5)


def test_a_circle_is_refused(tmp_path: Path):
    with pytest.raises(InputError, match=r"own\.yaml: extends itself, by way of base\.yaml; name another file"):
        read_model_file(write(tmp_path, base="extends: ../own.yaml\n"))
    with pytest.raises(InputError, match=r"own\.yaml: extends itself, by way of own\.yaml"):
        read_model_file(write(tmp_path, own="extends: own.yaml\n"))


@pytest.mark.parametrize(
    ("own", "base", "says"),
    [
        (OWN, BASE.replace("row_tokens: 512", "row_tokens: 0"), "base.yaml: row_tokens: .* (given: 0)"),
        (OWN, BASE.replace("80: {decisions: 16", "80: {decisions: -1"), "base.yaml: gpus.80.decisions: .* (given: -1)"),
        (OWN.replace("decisions: 2", "decisions: 0"), BASE, "own.yaml: gpus.24.decisions: .* (given: 0)"),
        (OWN + "dtype: int8\n", BASE.replace("bfloat16", "int4"), "own.yaml: dtype: .* (given: 'int8')"),
        (OWN, BASE + "dtyp: float32\n", "base.yaml: unknown key 'dtyp'"),
        (OWN + "licens: mit\n", BASE, "own.yaml: unknown key 'licens'"),
        (OWN.replace("name: some/model", ""), BASE, "own.yaml: name: Field required"),
        (OWN.replace("base.yaml", "bass.yaml"), BASE, "bass.yaml: no such configuration file"),
        (OWN, "- a list\n", "base.yaml: holds no settings"),
    ],
)
def test_a_bad_value_is_said_with_its_file(own: str, base: str, says: str, tmp_path: Path):
    with pytest.raises(InputError, match=re.escape(says).replace(r"\.\*", ".*")):
        read_model_file(write(tmp_path, own, base))


def test_the_project_s_files_are_found_from_anywhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    name = "configs/models/organism.yaml"
    monkeypatch.chdir(tmp_path)
    assert project_file(name) == ROOT / name and read_model_file(Path(name)).name == "models/organism"
    assert project_file("configs/nowhere.yaml") == Path("configs/nowhere.yaml"), "as it was given"
    (tmp_path / "configs" / "models").mkdir(parents=True)
    (tmp_path / name).write_text("name: mine\n")
    assert project_file(name) == Path(name) and read_model_file(Path(name)).name == "mine", "the current folder first"
