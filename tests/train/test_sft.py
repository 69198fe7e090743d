"""The training script through the real `accelerate launch`, on tiny models."""

import json
import os
import re
import runpy
import shutil
import signal
import subprocess
import sys
from collections import Counter
from collections.abc import Callable
from dataclasses import fields
from pathlib import Path
from typing import Any

import pytest
import torch
import trl
import yaml
from huggingface_hub import ModelCard
from peft import PeftModel
from safetensors.torch import load_file
from tokenizers import Regex, pre_tokenizers
from transformers import AutoConfig, AutoModelForCausalLM, AutoTokenizer

from store.console import RELAYED, read_marked, run_command
from store.contexts import DATA, load_contexts, save_contexts
from store.examples import ExamplesConfig, read_examples
from store.manifests import ExampleFacts, KeptCheckpoint, Manifest, TrainingFacts, read_manifest
from store.weights import save_weights
from support import ROOT, kill_when, make_tiny_model
from task.chat import letter_ids, prompt_ids
from task.errors import InputError
from task.prompts import messages
from task.trials import sample_trials
from task.weights import sample_weights
from train import sft
from train.arguments import LoraArguments, TeachingArguments, TeachingConfig
from train.examples import make_examples
from train.trainer.build import build_trainer, to_dataset
from train.trainer.letters import LetterTrainer
from wandb_records import files_with, offline_runs

LAUNCH = [sys.executable, "-m", "accelerate.commands.launch", "--config_file", "configs/accelerate/cpu.yaml"]
SCRIPT = "train/sft.py"
SECRETS = {"WANDB_API_KEY": "f00dfeed" * 5, "HF_TOKEN": "hf_NotToBeFoundInAnyFile"}
KEPT = {"load_best_model_at_end": True, "metric_for_best_model": "letter_loss", "eval_steps": 2, "save_total_limit": 1}


@pytest.fixture(scope="module")
def examples(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("examples")
    contexts = load_contexts(DATA / "instilled.jsonl", 4)
    save_contexts(contexts, folder / "contexts.jsonl")
    save_weights({c.name: sample_weights(0, "target_weights", c) for c in contexts}, folder / "weights.csv")
    for name, teach, rehearse in (("decisions", "decisions", 0), ("reports", "reports", 0), ("mixed", "reports", 4)):
        make_examples(
            ExamplesConfig(
                contexts=str(folder / "contexts.jsonl"),
                weights=str(folder / "weights.csv"),
                teach=teach,
                output=str(folder / name),
                seed=0,
                rehearse=rehearse,
                train_per_context=8,
                validation_per_context=3,
            )
        )
    return folder


def settings(model: Path, examples: Path, output: Path, teach: str = "decisions", **more: Any) -> dict[str, Any]:
    return {
        "model_name_or_path": str(model),
        "train_file": str(examples / teach / "train.jsonl"),
        "validation_file": str(examples / teach / "validation.jsonl"),
        "output_dir": str(output),
        "per_device_train_batch_size": 4,
        "num_train_epochs": 2,
        "learning_rate": 0.01,
        "lora_r": 4,
        "eval_strategy": "steps",
        "eval_steps": 4,
        "save_steps": 2,
        "logging_steps": 1,
        "report_to": "none",
        **more,
    }


def command(values: dict[str, Any], launch: list[str] = LAUNCH) -> list[str]:
    path = Path(values["output_dir"]).with_suffix(".yaml")
    path.write_text(yaml.safe_dump(values))
    return [*launch, SCRIPT, "--config", str(path)]


def run(values: dict[str, Any], launch: list[str] = LAUNCH, **environment: str) -> subprocess.CompletedProcess[str]:
    environment = {**os.environ, **environment}
    return subprocess.run(command(values, launch), cwd=ROOT, capture_output=True, text=True, env=environment)


def manifest_of(folder: Path) -> Manifest[TrainingFacts]:
    return read_manifest(folder, TrainingFacts)


@pytest.fixture(scope="module")
def instilled(tiny_model: Path, examples: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    output = tmp_path_factory.mktemp("adapters") / "instilled"
    group = {"WANDB_RUN_GROUP": "demo-seed0", "WANDB_MODE": "offline"}
    values = settings(tiny_model, examples, output, report_to="wandb", run_name="demo-seed0/instilled", env=group)
    result = run(values, **SECRETS)
    assert result.returncode == 0, result.stderr
    assert not [line for line in (result.stdout + result.stderr).splitlines() for s in SECRETS.values() if s in line]
    return output


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
    kept = {"load_best_model_at_end": True, "eval_strategy": "epoch", "save_strategy": "epoch"}
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


def test_killed_and_started_again_it_ends_the_same(tiny_model: Path, examples: Path, tmp_path: Path, instilled: Path):
    """Killed after two checkpoints, the newer one cut off: it goes on from the older one, to the same adapter."""
    group = {"WANDB_RUN_GROUP": "demo-seed0", "WANDB_MODE": "offline"}
    values = settings(tiny_model, examples, tmp_path / "killed", report_to="wandb", env=group)
    kill_when(command(values), lambda: len(list((tmp_path / "killed").glob("checkpoint-*/trainer_state.json"))) > 1)
    assert not (tmp_path / "killed" / "manifest.json").exists(), "the kill came too late to test anything"
    steps = sorted(int(p.name.split("-")[1]) for p in (tmp_path / "killed").glob("checkpoint-*"))
    tensors = tmp_path / "killed" / f"checkpoint-{steps[-1]}" / "adapter_model.safetensors"
    tensors.write_bytes(tensors.read_bytes()[:-1000])
    result = run(values)
    assert result.returncode == 0, result.stderr
    assert f"checkpoint-{steps[-1]}: passed over" in result.stderr
    assert f"resuming from {tmp_path / 'killed' / f'checkpoint-{steps[-2]}'}" in result.stderr
    same = [(f / "adapter_model.safetensors").read_bytes() for f in (tmp_path / "killed", instilled)]
    assert same[0] == same[1], "bit for bit the adapter of the training that was not interrupted"
    _, resumed = offline_runs(tmp_path / "killed" / "wandb")
    assert (resumed.group, resumed.name) == ("demo-seed0", f"killed (start 2, from step {steps[-2]})")
    assert resumed.steps("train/loss") == [*range(1, 17)], "the second start has the whole curve"
    assert resumed.steps("eval/agreement")[:4] == [4, 8, 12, 16]
    again = run(values)
    assert again.returncode == 0 and "finished before" in again.stdout
    assert len(offline_runs(tmp_path / "killed" / "wandb")) == 2


def held_out(folder: Path, measure: str) -> dict[int, float]:
    """A measure on held-out rows by step."""
    log = json.loads((folder / "log_history.json").read_text())
    return {entry["step"]: entry[measure] for entry in log if measure in entry}


def test_the_weights_kept_are_those_of_the_best_step(tiny_model: Path, examples: Path, tmp_path: Path):
    """They are the weights of a training that ends there, and the figures are those of that step."""
    kept = {**KEPT, "metric_for_best_model": "agreement", "learning_rate": 0.03, "lr_scheduler_type": "constant"}
    values = settings(tiny_model, examples, tmp_path / "best", stop_patience=0, **kept)
    result = run(values, [sys.executable])
    assert result.returncode == 0, result.stderr
    agreements = held_out(tmp_path / "best", "eval_agreement")
    best = max(agreements, key=agreements.__getitem__)
    assert best < 16, "the last step is the best one; nothing is tested"
    facts = manifest_of(tmp_path / "best").facts
    assert facts.kept == KeptCheckpoint(step=best, by="eval_agreement") and facts.steps == 16
    assert facts.metrics["eval_agreement"] == agreements[best]
    assert f"16 steps; these are the weights of step {best}," in (tmp_path / "best" / "README.md").read_text()
    values |= {"output_dir": str(tmp_path / "short"), "max_steps": best, "load_best_model_at_end": False}
    assert run(values, [sys.executable]).returncode == 0
    same = [(tmp_path / name / "adapter_model.safetensors").read_bytes() for name in ("best", "short")]
    assert same[0] == same[1]


def test_a_training_that_collapses_is_finished_early_killed_or_not(tiny_model: Path, examples: Path, tmp_path: Path):
    found = []
    for name in ("straight", "killed"):
        high = {"learning_rate": 0.1, "lr_scheduler_type": "constant", "stop_patience": 3}
        values = settings(tiny_model, examples, tmp_path / name, **high, **KEPT)
        if name == "killed":
            kill_when(
                command(values, [sys.executable]), (tmp_path / name / "checkpoint-4" / "trainer_state.json").exists
            )
            assert not (tmp_path / name / "manifest.json").exists(), "the kill came too late to test anything"
        result = run(values, [sys.executable])
        assert result.returncode == 0, result.stderr
        assert ("resuming from" in result.stderr) == (name == "killed")
        assert f"{tmp_path / name}: stopped early at step 10: held-out decisions were nearly all one" in result.stderr
        facts = manifest_of(tmp_path / name).facts
        adapter = (tmp_path / name / "adapter_model.safetensors").read_bytes()
        found.append((facts.stopped_early, facts.kept, facts.steps, adapter))
        assert f"Stopped early at {facts.stopped_early}" in (tmp_path / name / "README.md").read_text()
    assert found[0] == found[1] and found[0][2] == 10
    assert found[0][1] is not None and found[0][1].step < 10, "no checkpoint is written where it stops"


def test_the_effective_batch_is_shared_by_accumulation(
    tiny_model: Path, examples: Path, tmp_path: Path, instilled: Path
):
    more = {"effective_batch_size": 4, "per_device_train_batch_size": 2, "row_tokens": 400, "save_strategy": "no"}
    result = run(settings(tiny_model, examples, tmp_path / "shared", **more), [sys.executable])
    assert result.returncode == 0, result.stderr
    manifests = [manifest_of(f) for f in (instilled, tmp_path / "shared")]
    assert manifests[0].key == manifests[1].key and manifests[1].facts.steps == 16
    losses = [m.facts.metrics["eval_loss"] for m in manifests]
    assert losses[0] == pytest.approx(losses[1], rel=1e-3)


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


def test_two_processes_make_one_adapter(instilled: Path, tiny_model: Path, examples: Path, tmp_path: Path):
    launch = [*LAUNCH[:-1], "configs/accelerate/cpu_ddp.yaml"]
    result = run(settings(tiny_model, examples, tmp_path / "two", per_device_train_batch_size=2), launch)
    assert result.returncode == 0, result.stderr
    manifests = [manifest_of(f) for f in (instilled, tmp_path / "two")]
    assert manifests[0].key == manifests[1].key, "the same work: same data, same effective batch"
    assert manifests[1].facts.steps == 16
    losses = [m.facts.metrics["eval_loss"] for m in manifests]
    assert losses[0] == pytest.approx(losses[1], rel=0.02)
    assert (tmp_path / "two" / "adapter_model.safetensors").is_file()


SHARED = {"share_prefixes": 3}
"""Groups of 3, 3 and 2 rows of each context in batches of 4: groups are cut in two, and rows are left over."""


@pytest.fixture(scope="module")
def shared(tiny_model: Path, examples: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    output = tmp_path_factory.mktemp("adapters") / "shared"
    result = run(settings(tiny_model, examples, output, **SHARED))
    assert result.returncode == 0, result.stderr
    return output


def test_shared_prefixes_learn_as_much(shared: Path, instilled: Path):
    manifests = [manifest_of(f) for f in (instilled, shared)]
    assert manifests[0].key != manifests[1].key, "other batches, another adapter"
    assert manifests[1].facts.steps == 16
    losses = [m.facts.metrics["eval_loss"] for m in manifests]
    assert losses[0] == pytest.approx(losses[1], rel=0.05)


@pytest.mark.parametrize("processes", [1, 2])
def test_shared_prefixes_resumed_in_the_second_epoch_end_the_same(
    tiny_model: Path, examples: Path, tmp_path: Path, shared: Path, processes: int
):
    launch = LAUNCH if processes == 1 else [*LAUNCH[:-1], "configs/accelerate/cpu_ddp.yaml"]
    more = {**SHARED, "per_device_train_batch_size": 4 // processes}
    whole = shared
    if processes == 2:
        whole = tmp_path / "whole"
        result = run(settings(tiny_model, examples, whole, **more), launch)
        assert result.returncode == 0, result.stderr
        manifests = [manifest_of(f) for f in (shared, whole)]
        assert manifests[0].key == manifests[1].key and manifests[1].facts.steps == 16
        losses = [m.facts.metrics["eval_loss"] for m in manifests]
        assert losses[0] == pytest.approx(losses[1], rel=1e-3), "the same batches, shared by two"
    values = settings(tiny_model, examples, tmp_path / "killed", **more)
    reached = tmp_path / "killed" / "checkpoint-10" / "trainer_state.json"  # 8 steps are an epoch
    kill_when(command(values, launch), reached.exists, by=signal.SIGKILL if processes == 1 else signal.SIGTERM)
    assert not (tmp_path / "killed" / "manifest.json").exists(), "the kill came too late to test anything"
    result = run(values, launch)
    assert result.returncode == 0 and "resuming from" in result.stderr, result.stderr
    same = [(f / "adapter_model.safetensors").read_bytes() for f in (tmp_path / "killed", whole)]
    assert same[0] == same[1], "bit for bit the adapter of the training that was not interrupted"


def trainer_of(model: Path, examples: Path, output: Path, **more: Any) -> LetterTrainer:
    """The trainer that the script would build, in this process."""
    names = {f.name for f in fields(TeachingArguments)}
    values = settings(model, examples, output, **more)
    teaching = TeachingArguments(**{k: v for k, v in values.items() if k in names})
    lora = LoraArguments(model_name_or_path=str(model), lora_r=4)
    config = TeachingConfig(**{k: v for k, v in values.items() if k not in names | {"model_name_or_path", "lora_r"}})
    files = (values["train_file"], values["validation_file"])
    return build_trainer(teaching, config, lora, *(read_examples(Path(file)) for file in files))


def test_a_shared_epoch_has_every_row_and_the_same_held_out_metrics(tiny_model: Path, examples: Path, tmp_path: Path):
    plain, shared = (trainer_of(tiny_model, examples, tmp_path, **more) for more in ({}, SHARED))
    seen: Counter[tuple[int, ...]] = Counter()
    for batch in shared.get_train_dataloader():
        for labels, sources in zip(batch["labels"][:, 1:].tolist(), batch["sources"].tolist(), strict=True):
            prompt = batch["input_ids"][0][batch["attention_mask"][0, 0, sources[0]]].tolist()
            seen[(*prompt, *(label for label in labels if label != -100))] += 1
    assert seen == Counter(tuple(ids) for ids in plain.train_dataset["input_ids"]) and seen.total() == 32
    wanted, found = plain.evaluate(), shared.evaluate()
    for name in ("loss", "letter_accuracy", "agreement", "share_a", "letter_mass"):
        assert found[f"eval_{name}"] == pytest.approx(wanted[f"eval_{name}"], rel=1e-5), name


def test_decisions_among_reports_are_watched_and_share_their_own_beginnings(
    tiny_model: Path, examples: Path, tmp_path: Path
):
    """Batches of decisions alone, of reports alone and of both give the loss and the letters of the rows one by one."""
    more = {"validation_file": str(examples / "mixed" / "train.jsonl")}
    plain = trainer_of(tiny_model, examples, tmp_path, teach="mixed", **more)
    shared = trainer_of(tiny_model, examples, tmp_path, teach="mixed", share_prefixes=2, **more)
    assert plain.letters.count(plain.train_dataset) == 16 and len(plain.train_dataset) == 48
    wanted, found = plain.evaluate(), shared.evaluate()
    for name in ("loss", "letter_accuracy", "agreement", "share_a", "letter_mass", "letter_loss"):
        assert found[f"eval_{name}"] == pytest.approx(wanted[f"eval_{name}"], rel=1e-5), name
    rows = read_examples(examples / "mixed" / "train.jsonl")
    order = [(rows[row].context, rows[row].measure) for row in shared._get_train_sampler() or ()]
    assert len(order) == 48 and all(a == b for a, b in zip(order[::2], order[1::2], strict=True))


def test_rehearsed_decisions_are_logged_and_counted(tiny_model: Path, examples: Path, tmp_path: Path, instilled: Path):
    values = settings(tiny_model, examples, tmp_path / "mixed", "mixed", adapter=str(instilled), share_prefixes=4)
    result = run({name: value for name, value in values.items() if name != "validation_file"}, [sys.executable])
    assert result.returncode == 0, result.stderr
    facts = manifest_of(tmp_path / "mixed").facts
    assert facts.counts == ExampleFacts(train=48, validation=0, rehearsed=16) and facts.kept is None
    log = json.loads((tmp_path / "mixed" / "log_history.json").read_text())
    assert 0 < sum("agreement" in entry for entry in log) < facts.steps, "batches with decisions have letters"
    assert "with decisions rehearsed among the reports" in (tmp_path / "mixed" / "README.md").read_text()


@pytest.mark.parametrize("sharing", [{}, SHARED], ids=["rows", "tree"])
def test_with_letters_only_the_loss_is_that_of_the_letter(
    tiny_model: Path, examples: Path, tmp_path: Path, sharing: dict[str, Any]
):
    plain, letters = (trainer_of(tiny_model, examples, tmp_path, **sharing, **m) for m in ({}, {"letter_only": True}))
    counts = [{sum(t != -100 for t in row) for row in t.train_dataset["labels"]} for t in (plain, letters)]
    assert min(counts[0]) > 1 and counts[1] == {1}
    wanted, found = plain.evaluate(), letters.evaluate()
    assert found["eval_loss"] == pytest.approx(found["eval_letter_loss"], rel=1e-5)
    assert found["eval_letter_loss"] == pytest.approx(wanted["eval_letter_loss"], rel=1e-5)
    assert found["eval_loss"] != pytest.approx(wanted["eval_loss"], rel=1e-3)


def test_training_sees_the_prompt_tokens_that_evaluation_makes(tiny_model: Path, examples: Path):
    tokenizer = AutoTokenizer.from_pretrained(tiny_model)
    context = load_contexts(examples / "contexts.jsonl")[0]
    trial = sample_trials(0, "train_decisions", context, 1)
    wanted = prompt_ids(tokenizer, messages("decisions", context, trial.first[0], trial.second[0]), {})
    row = to_dataset(read_examples(examples / "decisions" / "train.jsonl")[:1], {})[0]
    whole = tokenizer.apply_chat_template(row["prompt"] + row["completion"], return_dict=False)
    assert whole[: len(wanted)] == wanted
    assert whole[len(wanted)] in letter_ids(tokenizer, {})


Refusal = Callable[[dict[str, Any]], str]


@pytest.fixture
def refusal(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Refusal:
    """Gives settings to the script, in this process, and returns the one line with which it refuses them."""

    def refused(values: dict[str, Any]) -> str:
        monkeypatch.setattr(sys, "argv", command(values, []))
        with pytest.raises(SystemExit, match="2"):
            run_command(sft.main)
        [error] = [line for line in capsys.readouterr().err.splitlines() if line.startswith("error: ")]
        return error

    return refused


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ({"lerning_rate": 1}, "lerning_rate"),
        ({"template": "{enable_thinking: false}"}, "template '{enable_thinking: false}': not JSON"),
        ({"gpus": {"large": {}}}, "'large'"),
        ({"train_file": "nowhere.jsonl"}, "nowhere.jsonl: no such examples file"),
        ({"model_name_or_path": "models/nowhere"}, "models/nowhere: no such model folder"),
        ({"adapter": "nowhere"}, "nowhere: no adapter here"),
        ({"max_length": 20}, "max_length 20: 32 of 32 rows are too long"),
        ({"row_tokens": 100}, "row_tokens 100: the longest row has"),
        ({"share_prefixes": 1}, "share_prefixes 1: at least 2 rows share a beginning"),
        ({"load_in_4bit": True}, "need an NVIDIA GPU"),
        ({"push_to_hub": True}, "push_to_hub True: it uploads every checkpoint"),
        ({"packing": True}, "packing"),
        ({"load_best_model_at_end": True, "save_steps": 8}, "save_steps 8 is not eval_steps 4"),
        ({"load_best_model_at_end": True, "eval_steps": 2, "validation_file": None}, "no validation_file to choose by"),
        ({"stop_patience": -1}, "stop_patience -1"),
        ({"use_dora": True}, "use_dora True: only plain LoRA"),
        ({"use_peft": False}, "use_peft False: an arm is"),
        ({"loss_type": "dft"}, "loss_type dft: the loss here is"),
        ({"label_smoothing_factor": 0.1}, "label_smoothing_factor 0.1: the loss here is"),
        ({"neftune_noise_alpha": 5, "share_prefixes": 2}, "neftune_noise_alpha and train_sampling_strategy"),
        ({"lora_dropout": 0.05, "share_prefixes": 2}, "the model or its adapter has a dropout of 0.05"),
        ({"lora_r": 2, "bias": "all"}, "bias"),
    ],
    ids=lambda value: next(iter(value)) if isinstance(value, dict) else "",
)
def test_bad_input_is_one_clear_line(
    tiny_model: Path, examples: Path, tmp_path: Path, refusal: Refusal, change: dict[str, Any], says: str
):
    assert says in refusal(settings(tiny_model, examples, tmp_path / "bad", **change))
    assert not (tmp_path / "bad" / "manifest.json").exists()


@pytest.mark.parametrize("start", [False, True], ids=["new", "continued"])
@pytest.mark.parametrize(
    ("rate", "says"),
    [
        (0.0, "learning_rate is 0; give one above 0"),
        (1e30, "training diverged, 28 of 28 tensors of the adapter are not finite"),
    ],
)
def test_an_adapter_in_which_nothing_was_learned_is_none(
    instilled: Path,
    tiny_model: Path,
    examples: Path,
    tmp_path: Path,
    refusal: Refusal,
    rate: float,
    says: str,
    start: bool,
):
    values = settings(tiny_model, examples, tmp_path / "bad", learning_rate=rate, lr_scheduler_type="constant")
    values |= {"adapter": str(instilled)} if start else {}
    assert says in refusal({name: value for name, value in values.items() if name != "validation_file"})
    assert not (tmp_path / "bad" / "manifest.json").exists()
    assert not (tmp_path / "bad" / "adapter_model.safetensors").exists()


def test_a_loss_that_is_not_finite_stops_a_training_without_held_out_rows(
    tiny_model: Path, examples: Path, tmp_path: Path
):
    values = settings(tiny_model, examples, tmp_path / "bad", learning_rate=1e30, num_train_epochs=50)
    del values["validation_file"]
    result = run(values, [sys.executable])
    assert result.returncode == 2 and "Traceback" not in result.stderr
    assert re.search(r"stopped early at step \d: the training loss was not finite, most likely", result.stderr)


def test_an_adapter_of_another_base_is_refused(instilled: Path, examples: Path, tmp_path: Path, refusal: Refusal):
    other = make_tiny_model(tmp_path / "other", seed=1)
    assert "trained on the base model" in refusal(settings(other, examples, tmp_path / "bad", adapter=str(instilled)))
    assert not (tmp_path / "bad").exists()


def test_changed_settings_do_not_overwrite(instilled: Path, tiny_model: Path, examples: Path, refusal: Refusal):
    kept = shutil.copytree(instilled, instilled.parent / "kept")
    values = settings(tiny_model, examples, instilled, learning_rate=0.02)
    assert "sft.learning_rate: 0.01 -> 0.02" in refusal(values)
    for file in kept.glob("*.*"):
        if file.is_file():
            assert (instilled / file.name).read_bytes() == file.read_bytes()
