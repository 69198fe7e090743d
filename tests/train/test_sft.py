"""The training script through the real `accelerate launch`, on tiny models."""

import json
import os
import runpy
import subprocess
import sys
from pathlib import Path

import pytest
import torch
import trl
from huggingface_hub import ModelCard
from peft import PeftModel
from safetensors.torch import load_file
from tokenizers import Regex, pre_tokenizers
from transformers import AutoConfig, AutoModelForCausalLM, AutoTokenizer

from store.checkpoints import kept_adapter
from store.console import RELAYED, read_marked
from store.manifests import ExampleFacts, KeptCheckpoint
from support import ROOT
from task.errors import InputError
from teaching import LAUNCH, SCRIPT, SECRETS, held_out, manifest_of, run, settings
from wandb_records import files_with, offline_runs


def test_the_adapter_moved_and_the_manifest_says_from_what(instilled: Path, tiny_model: Path):
    tensors = load_file(instilled / "adapter_model.safetensors")
    assert tensors and all(".lora_" in name for name in tensors), "only the adapter is saved"
    assert all(t.abs().sum() > 0 for name, t in tensors.items() if "lora_B" in name), "B begins at zero"
    manifest = manifest_of(instilled)
    assert manifest.facts.steps == 16 and manifest.facts.counts == ExampleFacts(train=32, validation=12)
    assert manifest.facts.base.name == str(tiny_model)
    assert {"eval_agreement", "eval_letter_accuracy", "eval_share_a"} <= set(manifest.facts.metrics)
    assert manifest.settings is not None and manifest.settings["learning_rate"] == 0.01
    assert "env" not in manifest.settings, "an environment may hold what is nobody's business"
    assert not list(instilled.glob("checkpoint-*")) and not list(instilled.glob("*.bin"))


def test_the_letter_is_watched_in_training_and_held_out(instilled: Path):
    log = json.loads((instilled / "log_history.json").read_text())
    watched = ("letter_accuracy", "agreement", "share_a", "letter_mass")
    assert sum(all(name in entry for name in watched) for entry in log) == 16
    assert sum(all(f"eval_{name}" in entry for name in watched) for entry in log) >= 4
    assert all(0 <= entry[name] <= 1 for entry in log for name in watched if name in entry)


def test_wandb_runs_offline(instilled: Path):
    [tracked] = offline_runs(instilled / "wandb")
    assert (tracked.group, tracked.name) == ("demo-seed0", "demo-seed0/instilled")
    assert tracked.config["learning_rate"] == 0.01 and tracked.config["peft_config"]["default"]["r"] == 4
    for key in ("train/loss", "train/letter_accuracy", "train/agreement", "train/share_a", "train/letter_mass"):
        assert tracked.steps(key) == [*range(1, 17)], key
    assert tracked.steps("eval/agreement")[:4] == tracked.steps("eval/letter_loss")[:4] == [4, 8, 12, 16]


def test_no_secret_is_in_any_file(instilled: Path):
    assert files_with(instilled, "demo-seed0/instilled"), "it can find what is there"
    assert not files_with(instilled.parent, *SECRETS.values())


def test_the_second_stage_goes_on_from_the_first(instilled: Path, tiny_model: Path, examples: Path, tmp_path: Path):
    kept = {"load_best_model_at_end": True, "eval_strategy": "epoch", "save_strategy": "epoch", "keep_steps": [1]}
    result = run(settings(tiny_model, examples, tmp_path / "reports", "reports", adapter=str(instilled), **kept))
    assert result.returncode == 0, result.stderr
    losses = held_out(tmp_path / "reports", "eval_loss")
    best = KeptCheckpoint(step=min(losses, key=losses.__getitem__), by="eval_loss")
    assert manifest_of(tmp_path / "reports").facts.kept == best and len(losses) == 2
    first, second = (load_file(f / "adapter_model.safetensors") for f in (instilled, tmp_path / "reports"))
    assert first.keys() == second.keys()
    assert any(not torch.equal(first[name], second[name]) for name in first)
    distance = sum((first[n] - second[n]).norm() for n in first) / sum(t.norm() for t in first.values())
    assert distance < 0.9, "it is near the first adapter, not a new one"
    early = load_file(kept_adapter(tmp_path / "reports", 1) / "adapter_model.safetensors")
    assert early.keys() == first.keys() and sum((first[n] - early[n]).norm() for n in first) > 0


def test_the_card_of_an_adapter_and_peft_alone(instilled: Path, tiny_model: Path):
    """The folder that the training left: a card without local paths, and an adapter that PEFT loads by itself."""
    card = ModelCard.load(instilled / "README.md")
    assert card.data.library_name == "peft" and "lora" in card.data.tags
    assert str(tiny_model) not in card.content and str(instilled.parent) not in card.content
    assert f"| agreement | {manifest_of(instilled).facts.metrics['eval_agreement']:.3f} |" in card.content
    assert "32 examples, 32 of them decisions" in card.content
    base = AutoModelForCausalLM.from_pretrained(tiny_model)
    ids = torch.arange(5, 25).unsqueeze(0)
    plain = base(ids).logits.detach().clone()
    adapted = PeftModel.from_pretrained(base, instilled)
    assert not torch.allclose(adapted(ids).logits, plain, atol=1e-3)


QWEN3 = {"hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 2, "head_dim": 12}


PIECES = r"[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
"""How Qwen's tokenizers cut texts: line breaks are one piece whatever follows them, so a prompt ends where it ends."""


@pytest.fixture(scope="module")
def tiny_qwen3(tiny_model: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A random Qwen3 with Qwen3's chat template, as TRL ships it; SmolLM2's vocabulary, cut as Qwen cuts it."""
    folder = tmp_path_factory.mktemp("models") / "qwen3"
    heads = {"num_attention_heads": 4, "num_key_value_heads": 2, "pad_token_id": 2, "eos_token_id": 2}
    tokenizer = AutoTokenizer.from_pretrained(tiny_model)
    tokenizer.add_tokens(["<think>", "</think>"])
    split = pre_tokenizers.Split(Regex(PIECES), "isolated")
    byte_level = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
    tokenizer.backend_tokenizer.pre_tokenizer = pre_tokenizers.Sequence([split, byte_level])
    torch.manual_seed(0)
    config = AutoConfig.for_model("qwen3", vocab_size=len(tokenizer), **QWEN3, **heads)
    AutoModelForCausalLM.from_config(config).save_pretrained(folder)
    tokenizer.chat_template = (Path(trl.__file__).parent / "chat_templates" / "qwen3.jinja").read_text()
    tokenizer.save_pretrained(folder)
    return folder


@pytest.mark.parametrize("thinks", [False, True])
def test_the_command_line_of_the_readme(tiny_qwen3: Path, examples: Path, tmp_path: Path, thinks: bool):
    """Mappings are JSON there; a model that would think before its answer is refused, as evaluation lets none think."""
    given = {"model_name_or_path": tiny_qwen3, "train_file": examples / "decisions" / "train.jsonl"}
    given |= {"output_dir": tmp_path / "out", "lora_r": 4, "max_steps": 2, "report_to": "none", "licence": "apache-2.0"}
    words = [word for name, value in given.items() for word in (f"--{name}", str(value))]
    words += ["--gpus", '{"24": {"per_device_train_batch_size": 2}}', "--lora_target_modules", "q_proj"]
    words += [] if thinks else ["--template", '{"enable_thinking": false}']
    environment = {**os.environ, RELAYED: "1"}
    result = subprocess.run([*LAUNCH, SCRIPT, *words], cwd=ROOT, capture_output=True, text=True, env=environment)
    said = [marked for line in result.stdout.splitlines() if (marked := read_marked(line))]
    if thinks:
        assert result.returncode and [m.kind for m in said] == ["error"] and "enable_thinking" in said[0].text
        return
    assert result.returncode == 0, result.stderr
    manifest = manifest_of(tmp_path / "out")
    assert manifest.depends_on["template"] == {"enable_thinking": False}
    assert manifest.depends_on["lora"]["lora_target_modules"] == ["q_proj"]  # type: ignore[index,call-overload]
    assert manifest.settings is None and manifest.facts.steps == 2
    assert {name.split(".")[-3] for name in load_file(tmp_path / "out" / "adapter_model.safetensors")} == {"q_proj"}
    assert "license: apache-2.0" in (tmp_path / "out" / "README.md").read_text()
    bar = [json.loads(m.text) for m in said if m.kind == "progress"]
    assert (bar[-1]["done"], bar[-1]["total"], bar[-1]["found"]) == (2, 2, 0)
    [result_line] = [m.text for m in said if m.kind != "progress"]
    assert result_line == f"{tmp_path / 'out'}: adapter saved after 2 steps; held out: none"


def test_a_process_above_rank_0_leaves_out_the_line_for_bad_input_and_nothing_else(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
):
    """The script as `accelerate` starts it for the second process; a bug there ends in a traceback on stderr."""
    errors = [InputError("a bad value"), KeyError("a bug")]
    stderr = sys.stderr

    def fail() -> None:
        raise errors.pop(0)

    monkeypatch.setenv("RANK", "1")
    monkeypatch.setattr("train.arguments.parse_arguments", fail)
    with pytest.raises(SystemExit, match="2"):
        runpy.run_path(str(ROOT / SCRIPT), run_name="__main__")
    assert capsys.readouterr().err == ""
    with pytest.raises(KeyError, match="a bug"):
        runpy.run_path(str(ROOT / SCRIPT), run_name="__main__")
    assert sys.stderr is stderr


def test_rehearsed_decisions_are_logged_and_counted(tiny_model: Path, examples: Path, tmp_path: Path, instilled: Path):
    values = settings(tiny_model, examples, tmp_path / "mixed", "mixed", adapter=str(instilled), share_prefixes=4)
    result = run({name: value for name, value in values.items() if name != "validation_file"}, [sys.executable])
    assert result.returncode == 0, result.stderr
    facts = manifest_of(tmp_path / "mixed").facts
    assert facts.counts == ExampleFacts(train=48, validation=0, rehearsed=16) and facts.kept is None
    log = json.loads((tmp_path / "mixed" / "log_history.json").read_text())
    assert 0 < sum("agreement" in entry for entry in log) < facts.steps, "batches with decisions have letters"
    assert "with decisions rehearsed among the reports" in (tmp_path / "mixed" / "README.md").read_text()
