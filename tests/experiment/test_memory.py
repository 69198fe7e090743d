"""The memory estimate against what torch really keeps, tensor by tensor, and against the peak of a training step."""

import json
import os
import subprocess
import sys
from dataclasses import replace
from typing import Any

import pytest
import torch
from peft import LoraConfig, get_peft_model
from transformers import AutoConfig, AutoModelForCausalLM

from experiment.memory import ADAPTER_BYTES, Load, estimate, layer_bytes, shape_of
from support import ROOT, SMALL_MODEL
from train.arguments import LORA_TARGETS
from train.trainer.shared_prefix import join_rows

SMALL = {"vocab_size": 1000, "hidden_size": 64, "intermediate_size": 160, "num_hidden_layers": 3}
HEADS = {"num_attention_heads": 4, "num_key_value_heads": 2, "head_dim": 24}
OTHER = {"vocab_size": 1500, "hidden_size": 128, "intermediate_size": 96, "num_hidden_layers": 5}
KINDS = ("llama", "qwen2", "qwen3", "olmo2", "gemma3_text")
# As 31B (keys are the values in full layers) and as E4B (a side input, and layers that take keys and values over)
GEMMA4 = {"global_head_dim": 48, "sliding_window": 512, "hidden_size_per_layer_input": 0}
MERGED = {**GEMMA4, "num_hidden_layers": 12, "attention_k_eq_v": True, "num_global_key_value_heads": 1}
SIDE = {**GEMMA4, "num_hidden_layers": 12, "num_kv_shared_layers": 5, "hidden_size_per_layer_input": 16}
ROWS, TOKENS, KEPT, RANK = 2, 100, 4, 8


def saved_bytes(
    kind: str, half: bool, checkpointing: bool, values: dict[str, int], joined: bool = False, dropout: float = 0.0
) -> tuple[int, Any, torch.nn.Module]:
    """Bytes of the storages that autograd keeps after a forward pass, without parameters."""
    config = AutoConfig.for_model(kind, **{**HEADS, **values, "pad_token_id": 0, "eos_token_id": 1, "bos_token_id": 2})
    dtype = torch.bfloat16 if half else torch.float32
    base = AutoModelForCausalLM.from_config(config, dtype=dtype, attn_implementation="sdpa")
    model = get_peft_model(base, LoraConfig(r=RANK, lora_dropout=dropout, target_modules=LORA_TARGETS))
    if checkpointing:
        model.gradient_checkpointing_enable()
        model.enable_input_require_grads()
    model.train()
    constant = {t.untyped_storage().data_ptr() for t in [*model.parameters(), *model.buffers()]}
    found: dict[int, int] = {}

    def keep(tensor: torch.Tensor) -> torch.Tensor:
        storage = tensor.untyped_storage()
        if storage.data_ptr() not in constant:
            found[storage.data_ptr()] = storage.nbytes()
        return tensor

    ids = torch.randint(3, 900, (ROWS, TOKENS), generator=torch.Generator().manual_seed(0))
    batch = {"input_ids": ids, "attention_mask": torch.ones_like(ids), "logits_to_keep": KEPT}
    batch["attention_mask"][0, -5:] = 0
    if joined:  # rows that share nothing
        rows = [[*row, row[-1]] for row in ids.tolist()]
        tree = join_rows(rows, [[-100] * (TOKENS + 1 - (KEPT - 1)) + row[1 - KEPT :] for row in rows], False)
        assert tree["input_ids"].numel() == ROWS * TOKENS
        batch = {k: tree[k] for k in ("input_ids", "position_ids", "attention_mask")}
        batch["logits_to_keep"] = tree["sources"].flatten()
    with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
        with torch.autocast("cpu", dtype=torch.bfloat16, enabled=half):
            logits = model(**batch, use_cache=False).logits
            loss = (logits if joined else logits[:, :-1]).float().log_softmax(dim=-1).mean()
        total = sum(found.values())
    loss.backward()
    return total, config, model


@pytest.mark.parametrize("values", [SMALL, OTHER], ids=["wide MLP", "narrow MLP"])
@pytest.mark.parametrize("half", [True, False], ids=["bfloat16", "float32"])
@pytest.mark.parametrize("kind", KINDS)
def test_saved_tensors_are_counted(kind: str, half: bool, values: dict[str, int]):
    """Within 3% of what autograd saves, for each architecture of configs/models/."""
    measured, config, model = saved_bytes(kind, half, False, values)
    shape = shape_of(config.to_dict(), model.num_parameters())
    load = Load(RANK, ROWS, TOKENS, KEPT, half=half)
    copies = 2 * shape.adapter_parameters(RANK) if half else 0
    kept = estimate(shape, load).activations + 4 * ROWS * (KEPT - 1) * shape.vocabulary + copies
    assert kept == pytest.approx(measured, rel=0.03)


@pytest.mark.parametrize("values", [MERGED, SIDE], ids=["keys are values", "side input"])
@pytest.mark.parametrize("half", [True, False], ids=["bfloat16", "float32"])
def test_the_layers_of_gemma_4_are_counted_kind_by_kind(half: bool, values: dict[str, int]):
    """Within 3% as above."""
    measured, config, model = saved_bytes("gemma4_text", half, False, {**SMALL, **values})
    shape = shape_of({**config.to_dict(), **values}, model.num_parameters())
    trained = sum(p.numel() for p in model.parameters() if p.requires_grad)
    assert shape.adapter_parameters(RANK) == trained
    copies = 2 * trained if half else 0
    kept = estimate(shape, Load(RANK, ROWS, TOKENS, KEPT, half)).activations + 4 * ROWS * (KEPT - 1) * shape.vocabulary
    assert kept + copies == pytest.approx(measured, rel=0.03)


@pytest.mark.parametrize("half", [True, False], ids=["bfloat16", "float32"])
def test_dropout_keeps_masks_and_inputs(half: bool):
    """On a CPU a mask is as wide as its float32 input; a GPU keeps a byte an element, which the estimate counts."""
    measured, config, model = saved_bytes("qwen2", half, False, SMALL, dropout=0.05)
    shape, load = shape_of(config.to_dict(), model.num_parameters()), Load(RANK, ROWS, TOKENS, KEPT, half, dropout=True)
    inputs = shape.layers * sum(i for i, _ in shape.linear_layers(shape.attention[0][0]))
    wider = 3 * ROWS * TOKENS * inputs if half else 0
    wider -= 4 * ROWS * TOKENS * 3 * shape.hidden  # what the first layer reads needs no gradient, so no mask is kept
    copies = 2 * shape.adapter_parameters(RANK) if half else 0
    kept = estimate(shape, load).activations + 4 * ROWS * (KEPT - 1) * shape.vocabulary + copies
    assert kept + wider == pytest.approx(measured, rel=0.03)
    assert kept > 1.1 * estimate(shape, replace(load, dropout=False)).activations, "or it would not be worth counting"


@pytest.mark.parametrize("half", [True, False], ids=["bfloat16", "float32"])
def test_joined_rows_keep_a_mask_of_their_whole_length(half: bool):
    """One sequence of all rows (`share_prefixes`), in the worst case, where they share nothing."""
    measured, config, model = saved_bytes("qwen2", half, False, SMALL, joined=True)
    shape, load = shape_of(config.to_dict(), model.num_parameters()), Load(RANK, ROWS, TOKENS, KEPT, half, joined=True)
    copies = 2 * shape.adapter_parameters(RANK) if half else 0
    kept = estimate(shape, load).activations + 4 * ROWS * (KEPT - 1) * shape.vocabulary + copies
    assert kept == pytest.approx(measured, rel=0.03)
    alone = estimate(shape, replace(load, joined=False)).activations
    assert estimate(shape, load).activations > 1.03 * alone, "or the mask would not be worth counting"


@pytest.mark.parametrize("half", [True, False], ids=["bfloat16", "float32"])
def test_checkpointing_keeps_the_hidden_states(half: bool):
    """What is saved before the backward pass is a hidden state a layer; the estimate adds one layer computed again."""
    measured, config, model = saved_bytes("llama", half, True, OTHER)
    shape, load = shape_of(config.to_dict(), model.num_parameters()), Load(RANK, ROWS, TOKENS, KEPT, half, True)
    [(attention, _)] = shape.attention
    before = estimate(shape, load).activations - ROWS * TOKENS * layer_bytes(shape, load, attention)
    final_norm = ROWS * TOKENS * (4 * shape.hidden + 4)
    assert before + final_norm + 4 * ROWS * (KEPT - 1) * shape.vocabulary == pytest.approx(measured, rel=0.03)


def test_adapter_gradients_and_moments_are_counted_exactly():
    _, config, model = saved_bytes("qwen3", False, False, SMALL)
    trained = [p for p in model.parameters() if p.requires_grad]
    optimizer = torch.optim.AdamW(trained)
    optimizer.step()
    held = sum(p.nbytes + p.grad.nbytes for p in trained if p.grad is not None)
    held += sum(t.nbytes for state in optimizer.state.values() for t in state.values() if t.dim())
    shape = shape_of(config.to_dict(), model.num_parameters())
    assert held == ADAPTER_BYTES * shape.adapter_parameters(RANK)
    assert estimate(shape, Load(RANK, 1, 1, 1, half=False)).adapter == held


PEAK = """
import json, resource, sys, torch
from peft import LoraConfig, get_peft_model
from transformers import AutoConfig, AutoModelForCausalLM
from train.arguments import LORA_TARGETS
folder, rows, tokens, kept, rank = sys.argv[1], *map(int, sys.argv[2:])
def status(name):
    return next(int(l.split()[1]) * 1024 for l in open("/proc/self/status") if l.startswith(name))
torch.randn(64, 64) @ torch.randn(64, 64)  # the libraries' own workspaces
before = status("VmRSS")
model = AutoModelForCausalLM.from_config(AutoConfig.from_pretrained(folder), dtype=torch.float32)
model = get_peft_model(model, LoraConfig(r=rank, target_modules=LORA_TARGETS, task_type="CAUSAL_LM")).train()
optimizer = torch.optim.AdamW([p for p in model.parameters() if p.requires_grad])
ids = torch.randint(10, 40000, (rows, tokens))
mask = torch.ones_like(ids); mask[0, -9:] = 0
for step in range(2):
    logits = model(input_ids=ids, attention_mask=mask, logits_to_keep=kept, use_cache=False).logits
    logits.float().log_softmax(-1)[..., 5].mean().neg().backward()
    optimizer.step(); optimizer.zero_grad()
print(json.dumps({"peak": status("VmHWM") - before}))
"""


# Every tensor of more than 64 kB in pages of its own, given back when freed. With glibc's defaults the heap of such a
# process grew to 1.5 to 1.8 times of what was allocated at any moment.
EXACT = {"MALLOC_MMAP_THRESHOLD_": "65536", "MALLOC_TRIM_THRESHOLD_": "65536", "MALLOC_TOP_PAD_": "0"}


def test_the_peak_of_a_training_step_on_the_small_model():
    """SmolLM2-135M in float32 on a CPU: the process's peak memory within 5% of the estimate.

    Measured over estimated was 1.033 for 1 x 128 tokens, 1.013 for 2 x 256, and 1.006 for 4 x 200 with 64 positions
    of logits.
    """
    rows, tokens, kept = 1, 128, 4
    command = [sys.executable, "-c", PEAK, str(SMALL_MODEL), str(rows), str(tokens), str(kept), "16"]
    result = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, env={**os.environ, **EXACT})
    assert result.returncode == 0, result.stderr
    measured = json.loads(result.stdout.splitlines()[-1])["peak"]
    config = json.loads((SMALL_MODEL / "config.json").read_text())
    expected = estimate(shape_of(config, 134_515_008), Load(16, rows, tokens, kept, half=False)).total
    assert expected == pytest.approx(measured, rel=0.05)
