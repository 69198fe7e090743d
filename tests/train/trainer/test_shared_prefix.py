"""A batch as a tree of tokens against the same rows one by one: loss, gradients, metrics; and the order of an epoch."""

from collections import Counter
from typing import Any

import pytest
import torch
from peft import LoraConfig, get_peft_model
from transformers import AutoConfig, AutoModelForCausalLM, Gemma3Config, PreTrainedConfig

from task.errors import InputError
from train.arguments import LORA_TARGETS
from train.trainer.letters import Letters, _completions, _losses, letter_rows
from train.trainer.shared_prefix import IGNORED, MODEL_TYPES, ContextOrder, check_window, join_rows, plan_sharing

SMALL = {
    **{"vocab_size": 300, "hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 3, "head_dim": 12},
    **{"num_attention_heads": 4, "num_key_value_heads": 2, "pad_token_id": 0, "eos_token_id": 1, "bos_token_id": 2},
}
A, B = 5, 6


def config_of(kind: str) -> PreTrainedConfig:
    """A tiny configuration; Gemma 3 with layers of both kinds, and with its vision tower as the 4B model has it."""
    window = {"sliding_window": 40, "layer_types": ["sliding_attention", "full_attention", "sliding_attention"]}
    if kind == "gemma3":
        vision = {"hidden_size": 16, "intermediate_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2}
        return Gemma3Config(
            text_config={**SMALL, **window}, vision_config={**vision, "image_size": 32, "patch_size": 8}
        )
    return AutoConfig.for_model(kind, **SMALL, **(window if kind == "gemma3_text" else {}))


def model_of(kind: str, attention: str = "sdpa") -> torch.nn.Module:
    torch.manual_seed(0)
    base = AutoModelForCausalLM.from_config(config_of(kind), dtype=torch.float32, attn_implementation=attention)
    targets: Any = LORA_TARGETS if kind != "gemma3" else rf".*language_model.*\.({'|'.join(LORA_TARGETS)})"
    model = get_peft_model(base, LoraConfig(r=4, target_modules=targets, task_type="CAUSAL_LM")).train()
    for name, parameter in model.named_parameters():
        if "lora_B" in name:
            torch.nn.init.normal_(parameter, std=0.2)
    return model


def example_rows() -> list[dict[str, Any]]:
    """Two contexts with an instruction in common, answers of all lengths, and two rows that are the same.

    The rows have 20 to 33 tokens; the tree of all of them is longer than the window of the tiny Gemma.
    """
    generator = torch.Generator().manual_seed(1)

    def some(count: int) -> list[int]:
        return torch.randint(10, 290, (count,), generator=generator).tolist()

    instruction = some(6)
    rows = []
    for scene in (some(9), some(7)):
        for number in range(4):
            prompt = instruction + scene + some(4 + number)
            answer = [A if number % 2 else B, *some(1 + 2 * number)]
            rows.append({"input_ids": prompt + answer, "labels": [IGNORED] * len(prompt) + answer})
    return [*rows, rows[2]]


def padded(rows: list[dict[str, Any]]) -> dict[str, torch.Tensor]:
    """The rows as TRL's collator lays them out."""
    longest = max(len(row["input_ids"]) for row in rows)

    def fill(values: list[int], filler: int) -> list[int]:
        return values + [filler] * (longest - len(values))

    return {
        "input_ids": torch.tensor([fill(row["input_ids"], 0) for row in rows]),
        "labels": torch.tensor([fill(row["labels"], IGNORED) for row in rows]),
        "attention_mask": torch.tensor([fill([1] * len(row["input_ids"]), 0) for row in rows]),
    }


def joined(rows: list[dict[str, Any]], additive: bool = False) -> dict[str, torch.Tensor]:
    return join_rows([row["input_ids"] for row in rows], [row["labels"] for row in rows], additive)


def loss_and_gradients(model: torch.nn.Module, batch: dict[str, torch.Tensor]) -> tuple[float, list[torch.Tensor], Any]:
    model.zero_grad()
    log_probs, labels = _completions(model, batch)
    loss = _losses(log_probs, labels).sum() / (labels != IGNORED).sum()
    loss.backward()
    found = [p.grad.clone() for p in model.parameters() if p.grad is not None]
    return loss.item(), found, letter_rows(log_probs.detach(), labels, Letters(A, B, 9))


@pytest.mark.parametrize("attention", ["sdpa", "eager"])
@pytest.mark.parametrize("kind", MODEL_TYPES)
def test_loss_gradients_and_letters_are_those_of_the_rows_one_by_one(kind: str, attention: str):
    model, rows = model_of(kind, attention), example_rows()
    plain, plain_gradients, plain_letters = loss_and_gradients(model, padded(rows))
    batch = joined(rows, additive=attention == "eager")
    loss, gradients, letters = loss_and_gradients(model, batch)
    assert loss == pytest.approx(plain, rel=1e-6)
    assert len(gradients) == len(plain_gradients) == 3 * 7 * 2 and max(g.abs().max() for g in gradients) > 1e-2
    for found, wanted in zip(gradients, plain_gradients, strict=True):
        torch.testing.assert_close(found, wanted, atol=1e-5, rtol=1e-5)
    torch.testing.assert_close(letters, plain_letters, atol=1e-5, rtol=1e-5)
    assert batch["input_ids"].shape[1] > 40, "the tree is longer than the sliding window of the tiny Gemma"


def test_gradient_checkpointing_changes_nothing():
    model, rows = model_of("llama"), example_rows()
    plain, gradients, _ = loss_and_gradients(model, joined(rows))
    model.gradient_checkpointing_enable()  # type: ignore[operator]
    model.enable_input_require_grads()  # type: ignore[operator]
    loss, again, _ = loss_and_gradients(model, joined(rows))
    assert loss == plain and all(torch.equal(a, b) for a, b in zip(gradients, again, strict=True))


def test_a_shared_token_stands_once_and_sees_its_ancestors_only():
    batch = join_rows([[7, 8, 9, A, 1], [7, 8, B, 1]], [[IGNORED] * 3 + [A, 1], [IGNORED] * 2 + [B, 1]], False)
    assert batch["input_ids"].tolist() == [[7, 8, 9, A, B]], "7 8 once, and no last tokens"
    assert batch["position_ids"].tolist() == [[0, 1, 2, 3, 2]]
    assert batch["labels"].tolist() == [[IGNORED, A, 1], [IGNORED, B, 1]]
    assert batch["sources"].tolist() == [[2, 3], [1, 4]], "B is predicted from 8, where the first row goes on with 9"
    sees = [
        [1, 0, 0, 0, 0],
        [1, 1, 0, 0, 0],
        [1, 1, 1, 0, 0],
        [1, 1, 1, 1, 0],
        [1, 1, 0, 0, 1],
    ]
    assert batch["attention_mask"].int().tolist() == [[sees]]
    assert next(iter(batch)) == "labels", "Trainer takes the number of rows from it"


CONTEXTS = ["bees"] * 10 + ["boats"] * 7 + ["bread"] * 8


def order(epoch: int, seed: int = 0, size: int = 4) -> list[int]:
    return list(ContextOrder(CONTEXTS, size, seed, lambda: epoch))


def test_an_epoch_has_every_row_once_and_full_packs_first():
    found = order(0)
    assert sorted(found) == list(range(25)) and len(ContextOrder(CONTEXTS, 4, 0, lambda: 0)) == 25
    packs = [[CONTEXTS[row] for row in found[start : start + 4]] for start in range(0, 24, 4)]
    assert Counter(p[0] for p in packs if len(set(p)) == 1) == {"bees": 2, "boats": 1, "bread": 2}
    [left] = [[*p, CONTEXTS[found[24]]] for p in packs if len(set(p)) > 1]
    assert left in (["bees"] * 2 + ["boats"] * 3, ["boats"] * 3 + ["bees"] * 2)


def test_few_decisions_of_each_context_are_rehearsed_throughout_an_epoch():
    """Two decisions beside 8 reports of each of 30 contexts: in every quarter of an epoch, in packs of their own."""
    groups = [(context, "reports" if row < 8 else "decisions") for context in range(30) for row in range(10)]
    found = [groups[row] for row in ContextOrder(groups, 8, 0, lambda: 0)]
    for start in range(0, 296, 8):
        assert len({measure for _, measure in found[start : start + 8]}) == 1
    quarters = [sum(m == "decisions" for _, m in found[start : start + 75]) for start in range(0, 300, 75)]
    assert min(quarters) > 0 and quarters[3] < 40


def test_the_order_is_a_function_of_seed_and_epoch():
    assert order(1) == order(1)
    assert order(0) != order(1) != order(1, seed=1)
    assert len({order(epoch)[-1] for epoch in range(9)}) > 1, "other rows are left over"


def test_rows_without_a_context_are_one_context():
    assert sorted(ContextOrder([""] * 6, 4, 0, lambda: 0)) == list(range(6))


def test_what_cannot_share_is_refused_in_one_line():
    rows = ["bees"]

    def config(kind: str, attention: str) -> PreTrainedConfig:
        found = config_of(kind) if kind in MODEL_TYPES else AutoConfig.for_model(kind)
        found._attn_implementation = attention
        return found

    assert plan_sharing(config("llama", "sdpa"), rows, None) is None
    sharing = plan_sharing(config("llama", "sdpa"), rows, 2)
    assert sharing is not None and sharing.groups == ["bees"] and not sharing.additive
    assert plan_sharing(config("qwen3", "eager"), rows, 2).additive  # type: ignore[union-attr]
    for attention in ("flash_attention_2", "flex_attention"):
        with pytest.raises(InputError, match=f"attn_implementation {attention} cannot take its mask"):
            plan_sharing(config("llama", attention), rows, 2)
    with pytest.raises(InputError, match="not gpt2"):
        plan_sharing(config("gpt2", "sdpa"), rows, 2)
    for kind in ("gemma3", "gemma3_text"):
        check_window(config_of(kind), 40)
        with pytest.raises(InputError, match="41 tokens and the model's sliding window 40"):
            check_window(config_of(kind), 41)
    check_window(config_of("qwen2"), 10_000)
