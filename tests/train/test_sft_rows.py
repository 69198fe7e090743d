"""What a training sees of its rows: every one of them, the tokens of evaluation, and the letters; in this process."""

from collections import Counter
from dataclasses import fields
from pathlib import Path
from typing import Any

import pytest
from transformers import AutoTokenizer

from store.contexts import load_contexts
from store.examples import read_examples
from task.chat import letter_ids, prompt_ids
from task.prompts import messages
from task.trials import sample_trials
from teaching import SHARED, settings
from train.arguments import LoraArguments, TeachingArguments, TeachingConfig
from train.trainer.build import build_trainer, to_dataset
from train.trainer.letters import LetterTrainer


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


def test_the_held_out_loss_is_that_of_all_tokens_whatever_the_batches(tiny_model: Path, examples: Path, tmp_path: Path):
    """Reports and decisions have answers of unlike length, and the last batch may be smaller than the others."""
    more = {"validation_file": str(examples / "mixed" / "train.jsonl")}
    trainer = trainer_of(tiny_model, examples, tmp_path, teach="mixed", per_device_eval_batch_size=1, **more)
    rows = trainer.eval_dataset.select([*range(3), *range(40, 48)])
    single = [trainer.evaluate(rows.select([n]))["eval_loss"] for n in range(len(rows))]
    counts = [sum(label != -100 for label in labels) for labels in rows["labels"]]
    assert len(set(counts)) > 1
    wanted = sum(loss * count for loss, count in zip(single, counts, strict=True)) / sum(counts)
    for size in (4, 11):
        trainer.args.per_device_eval_batch_size = size
        assert trainer.evaluate(rows)["eval_loss"] == pytest.approx(wanted, rel=1e-5)
