"""Memory that LoRA training takes, by arithmetic on a model's shape.

The terms are what PyTorch really keeps: fixed state (frozen weights; adapter, gradients and two AdamW moments in
float32), the tensors that autograd saves between forward and backward pass, the logits, and what one layer needs in
passing. The list of saved tensors follows the counting of Korthikanti et al. (2022, arXiv:2205.05198, section 4.1),
done again for the layers of today's models (RMSNorm, gated MLP, grouped-query attention through sdpa) under a frozen
base with adapters on all linear layers. `tests/experiment/test_memory.py` holds it against torch, tensor by tensor and
as peak memory.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

ADAPTER_BYTES = 4 * 4
"""Bytes of an adapter's parameter: itself, its gradient and AdamW's two moments, each in float32."""

LOGIT_BYTES = 16
"""Bytes of a logit at the peak: logit and log-probability, and the gradients of both, in float32."""

NF4_BYTES = 0.5 + 4 / 64
"""Bytes of a weight in NF4: four bits, and one float32 scale a block of 64 (Dettmers et al. 2023, arXiv:2305.14314)."""

CONTEXT_BYTES = 1_000_000_000
"""CUDA context and library workspaces on a GPU; an assumption, as no GPU was at hand to measure it."""

FRAGMENTATION = 1.1
"""Factor on what is allocated for what the allocator cannot reuse; an assumption, as above."""


@dataclass(frozen=True)
class Shape:
    """The numbers of a decoder-only model that memory depends on.

    Attributes:
        hidden, intermediate, layers, heads, kv_heads, head_dim, vocabulary: As in the model's configuration.
        norms: Norms of a layer that act on the hidden state (2; Gemma 3 has 4).
        head_norms: Whether queries and keys are normalised (Qwen3, Gemma 3, OLMo 2).
        parameters: Parameters of the whole model, from its publisher.
    """

    hidden: int
    intermediate: int
    layers: int
    heads: int
    kv_heads: int
    head_dim: int
    vocabulary: int
    norms: int
    head_norms: bool
    parameters: int

    @property
    def linear_layers(self) -> list[tuple[int, int]]:
        """(inputs, outputs) of the seven linear layers of a decoder layer."""
        d, q, kv, f = self.hidden, self.heads * self.head_dim, self.kv_heads * self.head_dim, self.intermediate
        return [(d, q), (d, kv), (d, kv), (q, d), (d, f), (d, f), (f, d)]

    def adapter_parameters(self, rank: int) -> int:
        """Parameters of a LoRA of one rank on all linear layers: rank x (inputs + outputs) each."""
        return self.layers * sum(rank * (i + o) for i, o in self.linear_layers)


def shape_of(config: Mapping[str, Any], parameters: int) -> Shape:
    """The shape of a model from the values of its `config.json` (the text part of a model that also sees)."""
    text = config.get("text_config", config)
    kind = text["model_type"]
    return Shape(
        hidden=text["hidden_size"],
        intermediate=text["intermediate_size"],
        layers=text["num_hidden_layers"],
        heads=text["num_attention_heads"],
        kv_heads=text["num_key_value_heads"],
        head_dim=text.get("head_dim", text["hidden_size"] // text["num_attention_heads"]),
        vocabulary=text["vocab_size"],
        norms=4 if kind.startswith("gemma3") else 2,
        head_norms=kind in ("qwen3", "olmo2", "gemma3_text"),
        parameters=parameters,
    )


@dataclass(frozen=True)
class Load:
    """What is trained at a time.

    Attributes:
        rank: LoRA rank.
        rows: Rows of a forward pass.
        row_tokens: Tokens of the longest row; the others are padded to it.
        label_tokens: Positions from the first label of any row to the end, for which logits are computed.
        half: Base in 16 bits and autocast (a GPU), or all in float32 (a CPU).
        checkpointing: Whether each layer's activations are computed again in the backward pass.
        four_bit: Whether the linear layers of the base are held in NF4 (QLoRA).
        joined: Whether the rows are one sequence (`share_prefixes`). How much of them is shared is not counted on, as a
            batch may hold rows of different contexts; but the mask is as long as all rows together.
    """

    rank: int
    rows: int
    row_tokens: int
    label_tokens: int
    half: bool = True
    checkpointing: bool = False
    four_bit: bool = False
    joined: bool = False

    @property
    def sequence(self) -> int:
        """Most tokens that attend to one another."""
        return self.row_tokens * (self.rows if self.joined else 1)


@dataclass(frozen=True)
class Estimate:
    """Bytes by what they are for."""

    weights: int
    adapter: int
    activations: int
    logits: int
    passing: int

    @property
    def total(self) -> int:
        """Bytes that are allocated at the peak."""
        return self.weights + self.adapter + self.activations + self.logits + self.passing

    @property
    def on_gpu(self) -> int:
        """Bytes that a GPU must have: the total, with the allocator's losses and the CUDA context."""
        return round(self.total * FRAGMENTATION) + CONTEXT_BYTES


def estimate(shape: Shape, load: Load) -> Estimate:
    """Peak memory of a training step (see the module's docstring for the reference).

    Returns:
        weights: 2 or 4 bytes a parameter; with `four_bit` NF4 for the linear layers, 16 bits for the rest.
        adapter: `ADAPTER_BYTES` a LoRA parameter, and its 16-bit copy under autocast.
        activations: `layer_bytes` a token and layer; with `checkpointing` the hidden state of each layer and one
            layer whole.
        logits: `LOGIT_BYTES` x rows x label_tokens x vocabulary.
        passing: What a layer's backward pass holds beside the saved tensors, three gradients of the MLP's width in
            float32; with `four_bit` also the largest linear layer unpacked to 16 bits.
    """
    width = 2 if load.half else 4
    tokens = load.rows * load.row_tokens
    linear = shape.layers * sum(i * o for i, o in shape.linear_layers)
    weights = width * shape.parameters
    passing = 3 * 4 * shape.intermediate * tokens
    if load.four_bit:
        weights = round(NF4_BYTES * linear + 2 * (shape.parameters - linear))
        passing += 2 * max(i * o for i, o in shape.linear_layers)
    lora = shape.adapter_parameters(load.rank)
    per_layer = layer_bytes(shape, load)
    kept = shape.layers * shape.hidden * width + per_layer if load.checkpointing else shape.layers * per_layer
    return Estimate(
        weights=weights,
        adapter=lora * (ADAPTER_BYTES + (2 if load.half else 0)),
        activations=tokens * kept,
        logits=LOGIT_BYTES * load.rows * load.label_tokens * shape.vocabulary,
        passing=passing,
    )


def layer_bytes(shape: Shape, load: Load) -> int:
    """Bytes that autograd saves for one token in one decoder layer.

    With h, q, k and f the widths of hidden state, queries, keys and MLP:

    - norms: their input in float32 and its scale, 4 h + 4 each; for queries and keys 4 (q + k) + 4 for each head;
    - adapters: seven times the rank, and their inputs: h each for queries, keys, values, gate and up, q for the
      output, f for down. Under autocast each is a copy of its own; in float32 the first three share one, as do the
      next two, and the output's is the attention's result;
    - attention (sdpa with a mask for padding): queries, keys and values repeated to all heads, its result, its
      log-normaliser (4 bytes a head) and the mask (a row of the sequence's length);
    - MLP: gate, its activation, up (the product is the input of down's adapter).
    """
    h, f = shape.hidden, shape.intermediate
    q, k = shape.heads * shape.head_dim, shape.kv_heads * shape.head_dim
    width = 2 if load.half else 4
    inputs = 5 * h + q + f if load.half else 2 * h + f
    norms = shape.norms * (4 * h + 4)
    if shape.head_norms:
        norms += 4 * (q + k) + 4 * (shape.heads + shape.kv_heads)
    attention = width * (4 * q + load.sequence) + 4 * shape.heads
    return norms + width * (7 * load.rank + inputs + 3 * f) + attention
