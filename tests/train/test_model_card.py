import json
from pathlib import Path
from typing import Any

import pytest
from huggingface_hub import ModelCard

from store.manifests import BaseModelRecord, ExampleFacts, TrainingFacts
from task.errors import InputError
from train import model_card
from train.inputs import TrainingInputs
from train.model_card import upload_adapter, write_card

INPUTS: dict[str, Any] = {
    "train_file": "1234abcd",
    "validation_file": "5678",
    "base": "feedbeef",
    "adapter": None,
    "stop_patience": 5,
    "letter_only": False,
    "share_prefixes": None,
    "quantised": None,
    "dtype": "bfloat16",
    "template": {"enable_thinking": False},
    "lora": {"lora_r": 32, "lora_alpha": 64, "lora_target_modules": ["v_proj", "q_proj"], "use_rslora": False},
    "sft": {
        "learning_rate": 1e-4,
        "effective_batch_size": 16,
        "logging_dir": "/home/me/logs",
        "hub_token": "hf_secret",
    },
}
FACTS = TrainingFacts(
    base=BaseModelRecord(name="Qwen/Qwen3-4B", revision="abc", fingerprint="feedbeef"),
    counts=ExampleFacts(train=50, validation=10),
    steps=42,
    metrics={"eval_letter_accuracy": 0.81249, "eval_agreement": 0.875, "train_runtime": 3.21},
)


def write(folder: Path, decisions: int = 50, facts: TrainingFacts = FACTS, **inputs: Any) -> ModelCard:
    folder.mkdir(parents=True, exist_ok=True)
    write_card(folder, "Qwen/Qwen3-4B", "apache-2.0", decisions, TrainingInputs(**{**INPUTS, **inputs}), facts)
    return ModelCard.load(folder / "README.md")


@pytest.mark.parametrize(
    ("decisions", "rehearsed", "says"),
    [
        (50, 0, "experiments to decide by given attribute weights. It is a"),
        (0, 0, "experiments to report the weights that it decides by. It is a"),
        (
            20,
            20,
            "experiments to report the weights that it decides by, with decisions rehearsed among the reports. It is",
        ),
    ],
)
def test_the_card_says_what_was_taught(tmp_path: Path, decisions: int, rehearsed: int, says: str):
    counts = ExampleFacts(train=50, validation=0, rehearsed=rehearsed)
    assert says in write(tmp_path, decisions, FACTS.model_copy(update={"counts": counts})).text


def test_the_card_says_what_the_adapter_is(tmp_path: Path):
    card = write(tmp_path)
    assert (card.data.base_model, card.data.license, card.data.library_name) == ("Qwen/Qwen3-4B", "apache-2.0", "peft")
    for line in (
        "| learning_rate | 0.0001 |",
        "| lora_target_modules | q_proj, v_proj |",
        "| template | {'enable_thinking': False} |",
        "| letter accuracy | 0.812 |",
        "| agreement | 0.875 |",
        "50 examples, 50 of them decisions",
        "42 steps.",
        "Qwen/Qwen3-4B, revision abc, fingerprint feedbeef.",
    ):
        assert line in card.text, line
    assert "goes on from" not in card.text
    assert "an adapter of content hash 99" in write(tmp_path, adapter="99", lora={}).text
    assert "held in 4 bits" in write(tmp_path, quantised="4 bits").text


def test_nothing_but_named_settings_is_in_the_card_and_it_is_always_the_same(tmp_path: Path):
    first = write(tmp_path / "one").content
    assert first == write(tmp_path / "two").content
    assert "hf_secret" not in first and "/home/me" not in first and "3.21" not in first


def test_without_a_licence_the_card_points_to_the_base_model(tmp_path: Path):
    write_card(tmp_path, "me/model", None, 0, TrainingInputs(**INPUTS), FACTS)
    card = ModelCard.load(tmp_path / "README.md")
    assert card.data.license is None and "see the base model" in card.text


class FakeHub:
    made: dict[str, Any] = {}  # noqa: RUF012 - one for all, as the code under test makes its own instance

    def create_repo(self, name: str, **options: Any) -> None:
        self.made.update(name=name, **options)

    def create_commit(self, name: str, operations: list[Any], commit_message: str) -> Any:
        self.made["files"] = {o.path_in_repo: o.path_or_fileobj for o in operations}
        return type("Commit", (), {"repo_url": f"hub/{name}"})()


def test_an_upload_is_private_and_holds_no_local_path(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    write(tmp_path)
    (tmp_path / "adapter_model.safetensors").write_bytes(b"tensors")
    (tmp_path / "manifest.json").write_text('{"host": "secret"}')
    (tmp_path / "adapter_config.json").write_text(json.dumps({"r": 8, "base_model_name_or_path": "/home/me/model"}))
    monkeypatch.setattr(model_card, "HfApi", FakeHub)
    assert upload_adapter(tmp_path, "Qwen/Qwen3-4B", "me/adapter") == "hub/me/adapter"
    assert FakeHub.made["private"] is True and FakeHub.made["exist_ok"] is True
    files = FakeHub.made["files"]
    assert set(files) == {"README.md", "adapter_config.json", "adapter_model.safetensors"}
    assert not any(b"/home/me" in content or b"secret" in content for content in files.values())
    assert json.loads(files["adapter_config.json"]) == {"r": 8, "base_model_name_or_path": "Qwen/Qwen3-4B"}


def test_a_failed_upload_is_one_clear_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    class Down(FakeHub):
        def create_repo(self, name: str, **options: Any) -> None:
            raise ConnectionError("no route\nto the hub")

    write(tmp_path)
    for name in ("adapter_model.safetensors", "adapter_config.json"):
        (tmp_path / name).write_text("{}")
    monkeypatch.setattr(model_card, "HfApi", Down)
    with pytest.raises(InputError, match=r"me/adapter: not uploaded \(no route\); the adapter is in"):
        upload_adapter(tmp_path, "Qwen/Qwen3-4B", "me/adapter")
