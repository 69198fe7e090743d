"""Every file of configs/models/ against vLLM, the templates that TRL ships, and the model itself on the meta device."""

import json
import re
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
import trl
from peft import LoraConfig, get_peft_model
from transformers import AutoConfig, AutoModelForCausalLM, AutoTokenizer

from experiment import capacity
from experiment.capacity import (
    GPUS,
    MODELS,
    STAGES,
    USABLE,
    load_of,
    memory_lines,
    model_files,
    problems,
    serving_lines,
    shapes,
)
from experiment.file import Experiment, load_experiment, load_groups
from experiment.memory import estimate
from experiment.plan import Run
from experiment.planned import TrialTokens
from store.contexts import DATA, load_contexts
from store.evaluation import EngineSettings
from store.model_file import GpuSettings, read_model_file
from store.run import RunFolder
from support import ROOT, SMALL_MODEL
from task.chat import letter_ids, prompt_ids
from task.errors import InputError
from task.prompts import messages, report_answer
from task.trials import sample_trials
from train.arguments import LORA_TARGETS
from train.hardware import split_batch

FILES, SHAPES = model_files(), shapes()
ARCHITECTURES = json.loads((MODELS / "architectures.json").read_text())["models"]
STEMS = sorted(FILES)
TEMPLATES = {
    "qwen2.5": "qwen2_5",
    "qwen3": "qwen3",
    "llama-3.2": "llama3_2",
    "llama-3.1": "llama3_1",
    "gemma-3": "gemma3",
    "gemma-4": "gemma4",
}


def meta_model(stem: str) -> torch.nn.Module:
    config = dict(ARCHITECTURES[stem]["config"])
    with torch.device("meta"):
        return AutoModelForCausalLM.from_config(AutoConfig.for_model(config.pop("model_type"), **config))


def test_all_models_of_the_plan_are_there():
    assert set(STEMS) == set(ARCHITECTURES) and len(STEMS) == 21
    names = {stem: FILES[stem].name for stem in STEMS if stem != "smollm2-135m-instruct"}  # the demo's is a folder
    assert names == {stem: ARCHITECTURES[stem]["name"] for stem in names}
    assert all(re.fullmatch(r"[0-9a-f]{40}", FILES[stem].revision or "") for stem in names)


@pytest.mark.parametrize("stem", STEMS)
def test_a_model_file_has_no_problem(stem: str):
    assert list(problems(FILES[stem], SHAPES[stem])) == []


@pytest.mark.parametrize("path", sorted(MODELS.glob("*.yaml")), ids=lambda p: p.stem)
def test_no_training_chooses_its_weights_by_what_is_held_out(path: Path):
    for stage in STAGES:
        settings = read_model_file(path).training(stage)
        assert not {"load_best_model_at_end", "metric_for_best_model"} & settings.keys()


def test_problems_are_found():
    good = FILES["qwen2.5-7b-instruct"]
    shape = SHAPES["qwen2.5-7b-instruct"]
    bad = {
        "lora_r is 24": {"sft": {**good.sft, "lora_r": 24}},
        "reports.effective_batch_size": {"reports": {}},
        "gpus has": {"gpus": {24: good.gpus[24]}},
        "row_tokens is not set": {"row_tokens": None},
        "gpus.24: decisions need": {"gpus": {**good.gpus, 24: GpuSettings(decisions=16, reports=8)}},
    }
    for says, change in bad.items():
        assert any(line.startswith(says) or says in line for line in problems(good.model_copy(update=change), shape)), (
            says
        )
    assert list(problems(good, None)) == ["architectures.json has no shape of this model"]


def test_only_the_models_asked_for_are_checked_and_one_without_a_shape_stops_no_other(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
):
    monkeypatch.setattr(capacity, "shapes", lambda: {k: v for k, v in SHAPES.items() if k != "qwen3-4b"})
    monkeypatch.setattr(sys, "argv", ["check_models.py", "qwen3-8b"])
    capacity.main()
    assert "qwen3-8b, 24 GB: weights" in capsys.readouterr().out
    for asked in (["qwen3-4b", "qwen3-8b"], []):
        monkeypatch.setattr(sys, "argv", ["check_models.py", *asked])
        with pytest.raises(InputError) as found:
            capacity.main()
        assert str(found.value) == "configs/models/qwen3-4b.yaml: architectures.json has no shape of this model"
        table = capsys.readouterr().out
        assert re.search(r"^qwen3-8b  ", table, re.MULTILINE) and not re.search(r"^qwen3-4b  ", table, re.MULTILINE)
    monkeypatch.setattr(sys, "argv", ["check_models.py", "qwen"])
    with pytest.raises(InputError, match="qwen: no such model file; there are: gemma"):
        capacity.main()


@pytest.mark.parametrize("stem", STEMS)
@pytest.mark.parametrize("stage", STAGES)
def test_the_effective_batch_is_the_same_on_every_gpu(stem: str, stage: Any):
    model = FILES[stem]
    wanted = model.training(stage)["effective_batch_size"]
    for gpu in model.gpus:
        for processes in (1, 2):
            rows, steps = split_batch(wanted, model.gpus[gpu].sft(stage)["per_device_train_batch_size"], processes)
            assert rows * steps * processes == wanted


@pytest.mark.parametrize("stem", STEMS)
def test_shape_and_adapter_agree_with_the_model_itself(stem: str):
    """Built on the meta device: parameters as published, and the adapter on every projection of the decoder only."""
    model = meta_model(stem)
    assert sum(p.numel() for p in model.parameters()) == ARCHITECTURES[stem]["parameters"]
    settings = FILES[stem].sft
    targets = settings.get("lora_target_modules", LORA_TARGETS)
    config = LoraConfig(r=settings["lora_r"], target_modules=targets[0] if len(targets) == 1 else targets)
    adapted = get_peft_model(model, config)  # type: ignore[arg-type]
    trained = {name: p.numel() for name, p in adapted.named_parameters() if p.requires_grad}
    assert sum(trained.values()) == SHAPES[stem].adapter_parameters(settings["lora_r"]) - left_out(stem)
    assert not any("vision" in name or "audio" in name for name in trained)


def left_out(stem: str) -> int:
    """Adapter parameters of keys that are the values too, which vLLM would serve in part: the file leaves them out."""
    shape, rank = SHAPES[stem], FILES[stem].sft["lora_r"]
    merged = [(a.kv_heads * a.head_dim, n) for a, n in shape.attention if a.keys and not a.values]
    return sum(rank * n * (shape.hidden + width) for width, n in merged)


def test_the_replication_is_trained_as_published():
    model = FILES["qwen2.5-7b-instruct"]
    both = {"lora_r": 64, "lora_alpha": 128, "lora_dropout": 0.05}
    instillation = {"lr_scheduler_type": "cosine", "warmup_steps": 0.03, "effective_batch_size": 32}
    reports = {"lr_scheduler_type": "constant", "warmup_steps": 0, "effective_batch_size": 8}
    wanted = {
        "decisions": {**both, **instillation, "learning_rate": 5e-5, "num_train_epochs": 3},
        "reports": {**both, **reports, "learning_rate": 1e-5, "num_train_epochs": 5},
    }
    for stage in STAGES:
        settings = model.training(stage)
        assert {key: settings.get(key) for key in wanted[stage]} == wanted[stage]
        assert "lora_target_modules" not in settings, "all linear layers"


@pytest.mark.parametrize("stem", [stem for stem in STEMS if stem != "smollm2-135m-instruct"])
def test_other_models_are_derived_from_it_by_the_rule(stem: str):
    rates = {"learning_rate", "lora_r", "lora_alpha", "lora_target_modules"}
    for stage, published in zip(STAGES, (5e-5, 1e-5), strict=True):
        settings, theirs = (FILES[s].training(stage) for s in (stem, "qwen2.5-7b-instruct"))
        assert {k: v for k, v in settings.items() if k not in rates} == {
            k: v for k, v in theirs.items() if k not in rates
        }
        assert settings["learning_rate"] == pytest.approx(published * (3584 / SHAPES[stem].hidden) ** 0.5, rel=0.04)
        assert settings["lora_r"] == (8 if stem.startswith(("qwen3", "gemma-4")) else 64)
        assert settings["lora_alpha"] == 2 * settings["lora_r"] and settings["learning_rate"] <= 1e-4


def test_memory_is_planned_for_rows_in_one_sequence_where_they_share_prefixes():
    plain, shape = FILES["qwen2.5-7b-instruct"], SHAPES["qwen2.5-7b-instruct"]
    shared = plain.model_copy(update={"sft": {**plain.sft, "share_prefixes": 4}})
    loads = [load_of(model, 80, "decisions") for model in (plain, shared)]
    assert [load.sequence for load in loads] == [512, 512 * loads[0].rows] and loads[0].rows > 1
    assert estimate(shape, loads[1]).activations > estimate(shape, loads[0]).activations


@pytest.mark.parametrize("stem", STEMS)
@pytest.mark.parametrize("stage", STAGES)
def test_a_gpu_trains_as_many_rows_at_a_time_as_it_holds(stem: str, stage: Any):
    """Twice the rows would not fit, and activations are computed again only where four rows would not fit else."""
    for gpu in FILES[stem].gpus:
        load = load_of(FILES[stem], gpu, stage)
        twice = estimate(SHAPES[stem], replace(load, rows=2 * load.rows)).on_gpu
        assert load.rows == FILES[stem].training(stage)["effective_batch_size"] or twice > USABLE * gpu * 1e9
        if load.checkpointing:
            plain = replace(load, rows=4, checkpointing=False, four_bit=False)
            assert estimate(SHAPES[stem], plain).on_gpu > USABLE * gpu * 1e9
        if load.four_bit:
            whole = replace(load, rows=1, checkpointing=True, four_bit=False)
            assert estimate(SHAPES[stem], whole).on_gpu > USABLE * gpu * 1e9


def tokenizer_of(stem: str) -> Any:
    """SmolLM2's tokenizer with the model's chat template where TRL ships it, and the template's marks as tokens."""
    tokenizer = AutoTokenizer.from_pretrained(SMALL_MODEL)
    if stem.startswith("smollm2"):
        return tokenizer
    names = [name for start, name in TEMPLATES.items() if stem.startswith(start)]
    if not names:
        pytest.skip("no template of this model is at hand offline")
    text = (Path(trl.__file__).parent / "chat_templates" / f"{names[0]}.jinja").read_text()
    marks = sorted(set(re.findall(r"<\|?\w+\|?>|</?think>", text)))
    tokenizer.add_tokens([m for m in marks if m not in tokenizer.get_vocab()], special_tokens=True)
    # Llama 3 and Qwen split text after line ends, SmolLM2 (as GPT-2) before the last: an empty line is one token there.
    tokenizer.add_tokens(["\n\n"])
    tokenizer.chat_template = text
    return tokenizer


@pytest.mark.parametrize("stem", STEMS)
def test_prompts_are_the_beginning_of_prompt_and_answer_and_letters_one_token(stem: str):
    tokenizer, template = tokenizer_of(stem), FILES[stem].template
    a, b = letter_ids(tokenizer, template)
    assert [tokenizer.decode([i]).strip() for i in (a, b)] == ["A", "B"]
    context = load_contexts(DATA / "instilled.jsonl", 1)[0]
    trial = sample_trials(0, "train_reports", context, 1)
    prompt = messages("reports", context, trial.first[0], trial.second[0])
    before = prompt_ids(tokenizer, prompt, template)
    answer = {"role": "assistant", "content": report_answer(context, [-7.0] * len(context.attributes))}
    whole = tokenizer.apply_chat_template([*prompt, answer], return_dict=False, **template)
    assert list(whole[: len(before)]) == before
    text = tokenizer.decode(before)
    assert prompt[0]["content"] in text, "the system text is kept"
    if stem.startswith("qwen3"):
        assert text.endswith("<think>\n\n</think>\n\n"), "thinking is over before the answer begins"
    if stem.startswith("llama"):
        assert "Today Date: 26 Jul 2024" in text


def test_without_the_template_arguments_the_date_and_the_thinking_return():
    """What the arguments of the model files are for."""
    question = [{"role": "user", "content": "A or B?"}]
    llama, qwen = tokenizer_of("llama-3.2-1b-instruct"), tokenizer_of("qwen3-4b")
    assert "26 Jul 2024" not in llama.decode(prompt_ids(llama, question, {}))  # type: ignore[arg-type]
    with pytest.raises(InputError, match="begin with the same token"):
        letter_ids(qwen, {})  # the first token of either answer is <think>


def test_no_row_is_longer_than_planned():
    tokenizer = AutoTokenizer.from_pretrained(SMALL_MODEL)
    longest = 0
    for name in ("instilled", "native", "spare"):
        for context in load_contexts(DATA / f"{name}.jsonl"):
            trial = sample_trials(0, "train_reports", context, 1)
            prompt = messages("reports", context, trial.first[0], trial.second[0])
            answer = report_answer(context, [-100.0] * len(context.attributes))
            rows = [*prompt, {"role": "assistant", "content": answer}]
            longest = max(longest, len(tokenizer.apply_chat_template(rows, return_dict=False)))
    assert 256 < longest <= min(m.row_tokens or 0 for m in FILES.values())


def test_the_dry_run_shows_what_each_gpu_would_train():
    command = [sys.executable, "scripts/run_experiment.py", "configs/experiments/replication.yaml", "--dry-run"]
    result = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    assert result.returncode == 0, result.stderr
    lines = memory_lines("qwen2.5-7b-instruct", FILES["qwen2.5-7b-instruct"])
    assert [line.partition(":")[0] for line in lines] == [f"on a GPU of {gpu} GB" for gpu in GPUS]
    assert all(result.stdout.count(line) == 3 for line in lines), "once a seed"
    assert result.stdout.count("vLLM: max_model_len ") == 3
    assert memory_lines("unknown", FILES["qwen2.5-7b-instruct"]) == []


def test_the_dry_run_shows_what_vllm_is_started_with():
    stem, lengths = "qwen2.5-7b-instruct", {"max_prompt_tokens": 300, "max_reply_tokens": 100}
    [line] = serving_lines(stem, FILES[stem], EngineSettings(**lengths))
    # 28 layers, 4 heads of 128, keys and values, 2 bytes: 57,344 bytes a token; 7.616 billion parameters of 2 bytes.
    rows = [int((0.92 * gpu * 1e9 - 7_615_616_512 * 2) / (57_344 * 400)) for gpu in GPUS]
    assert "max_model_len 400;" in line and "57 kB a token beside 15.2 GB" in line
    assert ", ".join(f"{row} on {gpu} GB" for row, gpu in zip(rows, GPUS, strict=True)) in line
    [split] = serving_lines(stem, FILES[stem], EngineSettings(vllm={"tensor_parallel_size": 2}, **lengths))
    assert "29 kB a token beside 7.6 GB" in split
    [short] = serving_lines(stem, FILES[stem], EngineSettings(vllm={"max_model_len": 128}, **lengths))
    assert "max_model_len 128;" in short
    assert serving_lines(stem, FILES[stem], EngineSettings(name="transformers")) == []


def test_a_stage_is_the_same_on_every_gpu_and_an_experiment_may_set_the_rows():
    experiment = load_experiment(ROOT / "configs" / "experiments" / "replication.yaml")
    model, groups = FILES["qwen2.5-7b-instruct"], load_groups(experiment)

    def settings(changed: Experiment) -> dict[str, Any]:
        run = Run(changed, model, groups, 0, RunFolder(Path("runs/x")), lambda *_: TrialTokens(1, 1, 1, 1, 1))
        return next(stage.config for stage in run.stages if stage.name == "instilled.sft")

    plain = settings(experiment)
    assert plain["gpus"]["24"] == {"per_device_train_batch_size": 2, "gradient_checkpointing": True}
    assert plain["effective_batch_size"] == 32 and plain["row_tokens"] == 512
    assert json.loads(json.dumps(plain)) == plain, "the same after writing and reading"
    training = experiment.trainings["instilled"].model_copy(update={"sft": {"per_device_train_batch_size": 1}})
    changed = experiment.model_copy(update={"trainings": {**experiment.trainings, "instilled": training}})
    assert "gpus" not in settings(changed) and settings(changed)["per_device_train_batch_size"] == 1
