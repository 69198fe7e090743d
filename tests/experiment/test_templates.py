"""A chat template that does not do is found by the dry run, and before the first stage of a run."""

import sys
from pathlib import Path

import huggingface_hub
import pytest
import trl
import yaml
from transformers import AutoTokenizer

from experiment import launcher
from experiment.templates import dialogues, tokenizer_at_hand
from store.model_file import ModelFile
from support import ROOT, SMALL_MODEL
from task.errors import InputError

LLAMA = (Path(trl.__file__).parent / "chat_templates" / "llama3_2.jinja").read_text()


def write_experiment(folder: Path, jinja: str, **model: object) -> Path:
    """The demo with few contexts, and a model of which no more than the tokenizer is here."""
    tokenizer = AutoTokenizer.from_pretrained(SMALL_MODEL)
    tokenizer.add_tokens(["<|start_header_id|>", "<|end_header_id|>", "<|eot_id|>", "\n\n"], special_tokens=True)
    tokenizer.chat_template = jinja
    tokenizer.save_pretrained(folder / "some_model")
    values = yaml.safe_load((ROOT / "configs" / "experiments" / "demo.yaml").read_text())
    for group in values["contexts"].values():
        group["count"] = 4
    values["model"] = str(folder / "model.yaml")
    (folder / "model.yaml").write_text(yaml.safe_dump({"name": str(folder / "some_model"), **model}))
    (folder / "some.yaml").write_text(yaml.safe_dump(values))
    return folder / "some.yaml"


def start(file: Path, monkeypatch: pytest.MonkeyPatch, *options: str) -> None:
    monkeypatch.setattr(sys, "argv", ["run_experiment.py", str(file), "--runs", str(file.parent / "runs"), *options])
    launcher.main()


def test_an_unpinned_date_is_found_before_anything_runs(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
):
    file = write_experiment(tmp_path, LLAMA)
    for options in (["--dry-run"], []):
        with pytest.raises(
            InputError, match=r'depends on the date; pin it .* template: \{date_string: "26 Jul 2024"\}'
        ):
            start(file, monkeypatch, *options)
    assert not (tmp_path / "runs").exists()
    file = write_experiment(tmp_path, LLAMA, template={"date_string": "26 Jul 2024"})
    start(file, monkeypatch, "--dry-run")
    assert "chat template: checked on every kind of prompt" in capsys.readouterr().out


def test_every_kind_of_prompt_of_an_experiment_is_checked(tmp_path: Path):
    refusing = (
        LLAMA + "{% if 'Leave out the decision' in messages[-1]['content'] %}{{ raise_exception('no') }}{% endif %}"
    )
    with pytest.raises(InputError, match="chat template: does not take system, user"):
        launcher.plan_runs(write_experiment(tmp_path, refusing), tmp_path / "runs")
    run = launcher.plan_runs(write_experiment(tmp_path, LLAMA), tmp_path / "runs")[0]
    ends = [said[-1]["content"][:1] for said in dialogues(run)]
    assert {"A", "{"} == set(ends) and all(said[-1]["role"] == "assistant" for said in dialogues(run))


def test_a_tokenizer_is_taken_from_the_folder_or_the_cache_and_never_fetched(monkeypatch: pytest.MonkeyPatch):
    kept = str(SMALL_MODEL / "tokenizer.json")
    monkeypatch.setattr(huggingface_hub, "try_to_load_from_cache", lambda name, file, revision: kept)
    assert tokenizer_at_hand(ModelFile(name="some/model")) is not None
    monkeypatch.setattr(huggingface_hub, "try_to_load_from_cache", lambda name, file, revision: None)
    assert tokenizer_at_hand(ModelFile(name="some/model")) is None
    monkeypatch.undo()
    assert tokenizer_at_hand(ModelFile(name="a/path/to/nowhere")) is None, "no name on the Hub"
    assert tokenizer_at_hand(ModelFile(name=str(SMALL_MODEL))) is not None
