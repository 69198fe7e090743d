"""Memory that LoRA training takes, by arithmetic on a model's shape.

The terms are what PyTorch really keeps: fixed state (frozen weights; adapter, gradients and two AdamW moments in
float32), the tensors that autograd saves between forward and backward pass, the logits, and what one layer needs in
passing. The list of saved tensors follows the counting of Korthikanti et al. (2022, arXiv:2205.05198, section 4.1),
done again for the layers of today's models (RMSNorm, gated MLP, grouped-query attention through sdpa) under a frozen
base with adapters on all linear layers. `tests/experiment/test_memory.py` holds it against torch, tensor by tensor and
as peak memory.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, replace
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

FULL_EVERY = 6
"""Of the layers of Gemma 4 every sixth attends to all tokens, the others to a window."""


@dataclass(frozen=True)
class Attention:
    """The attention of a decoder layer.

    Attributes:
        heads, kv_heads, head_dim: As in the model's configuration.
        keys, values: Whether the layer projects keys and values of its own. The last layers of Gemma 4 E4B take over
            both from an earlier one, and the full layers of Gemma 4 31B use the projection of the keys for both.
    """

    heads: int
    kv_heads: int
    head_dim: int
    keys: bool = True
    values: bool = True


@dataclass(frozen=True)
class Shape:
    """The numbers of a decoder-only model that memory depends on.

    Attributes:
        hidden, intermediate, vocabulary: As in the model's configuration.
        attention: Each kind of attention with the number of layers that have it.
        norms: Norms of a layer that act on the hidden state (2; Gemma 3 has 4, Gemma 4 E4B 5).
        head_norms: Whether queries and keys are normalised (Qwen3, Gemma 3 and 4, OLMo 2).
        value_norms: Whether values are normalised (Gemma 4).
        side: Width of what each layer reads beside the hidden state (Gemma 4 E4B), 0 elsewhere.
        parameters: Parameters of the whole model.
    """

    hidden: int
    intermediate: int
    vocabulary: int
    attention: tuple[tuple[Attention, int], ...]
    norms: int
    head_norms: bool
    parameters: int
    value_norms: bool = False
    side: int = 0

    @property
    def layers(self) -> int:
        """Decoder layers."""
        return sum(count for _, count in self.attention)

    def linear_layers(self, attention: Attention) -> list[tuple[int, int]]:
        """(inputs, outputs) of the linear layers that get an adapter in a decoder layer: seven, or those it has."""
        h, f = self.hidden, self.intermediate
        q, kv = attention.heads * attention.head_dim, attention.kv_heads * attention.head_dim
        own = attention.keys + (attention.keys and attention.values)
        return [(h, q), *[(h, kv)] * own, (q, h), (h, f), (h, f), (f, h)]

    def adapter_parameters(self, rank: int) -> int:
        """Parameters of a LoRA of one rank on all linear layers: rank x (inputs + outputs) each."""
        return sum(n * rank * (i + o) for a, n in self.attention for i, o in self.linear_layers(a))


def shape_of(config: Mapping[str, Any], parameters: int) -> Shape:
    """The shape of a model from the values of its `config.json` (the text part of a model that also sees)."""
    text = config.get("text_config", config)
    kind, gemma4 = text["model_type"], text["model_type"] == "gemma4_text"
    side = text.get("hidden_size_per_layer_input") or 0
    return Shape(
        hidden=text["hidden_size"],
        intermediate=text["intermediate_size"],
        vocabulary=text["vocab_size"],
        attention=tuple(Counter(_attention(text, layer) for layer in range(text["num_hidden_layers"])).items()),
        norms=4 + (side > 0) if kind.startswith("gemma") else 2,
        head_norms=kind in ("qwen3", "olmo2", "gemma3_text", "gemma4_text"),
        parameters=parameters,
        value_norms=gemma4,
        side=side,
    )


def _attention(text: Mapping[str, Any], layer: int) -> Attention:
    """The attention of one layer; it differs between layers in Gemma 4 only."""
    size = text.get("head_dim") or text["hidden_size"] // text["num_attention_heads"]
    plain = Attention(text["num_attention_heads"], text["num_key_value_heads"], size)
    if text["model_type"] != "gemma4_text":
        return plain
    shared = layer >= text["num_hidden_layers"] - (text.get("num_kv_shared_layers") or 0)
    if (layer + 1) % FULL_EVERY:
        return replace(plain, keys=not shared)
    merged = bool(text.get("attention_k_eq_v"))
    wider = (text.get("num_global_key_value_heads") if merged else None) or plain.kv_heads
    return Attention(plain.heads, wider, text["global_head_dim"], keys=not shared, values=not merged)


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
        dropout: Whether the adapters drop some of their inputs out.
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
    dropout: bool = False
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
    matrices = [(i * o, count) for kind, count in shape.attention for i, o in shape.linear_layers(kind)]
    linear = sum(size * count for size, count in matrices)
    weights = width * shape.parameters
    passing = 3 * 4 * shape.intermediate * tokens
    if load.four_bit:
        weights = round(NF4_BYTES * linear + 2 * (shape.parameters - linear))
        passing += 2 * max(size for size, _ in matrices)
    lora = shape.adapter_parameters(load.rank)
    layers = [(layer_bytes(shape, load, kind), count) for kind, count in shape.attention]
    kept = sum(size * count for size, count in layers)
    if load.checkpointing:
        kept = shape.layers * shape.hidden * width + max(size for size, _ in layers)
    return Estimate(
        weights=weights,
        adapter=lora * (ADAPTER_BYTES + (2 if load.half else 0)),
        activations=tokens * kept,
        logits=LOGIT_BYTES * load.rows * load.label_tokens * shape.vocabulary,
        passing=passing,
    )


def layer_bytes(shape: Shape, load: Load, attention: Attention) -> int:
    """Bytes that autograd saves for one token in one decoder layer.

    With h, q, k and f the widths of hidden state, queries, keys and MLP:

    - norms: their input in float32 and its scale, 4 h + 4 each; for queries and keys (and values, where those are
      normalised) 4 bytes an element and 4 for each head;
    - adapters: the rank for each, and their inputs: h each for queries, keys, values, gate and up, q for the output, f
      for down. Under autocast each is a copy of its own; in float32 the first three share one, as do the next two, and
      the output's is the attention's result. With dropout each is a copy of its own in either case, and has a mask: a
      byte an element on a GPU, as much as the element on a CPU;
    - attention (sdpa with a mask for padding): queries, keys and values repeated to all heads, its result, its
      log-normaliser (4 bytes a head) and the mask (a row of the sequence's length);
    - MLP: gate, its activation, up (the product is the input of down's adapter);
    - side input: itself, its gate and the gate's activation.
    """
    h, f = shape.hidden, shape.intermediate
    q, k = attention.heads * attention.head_dim, attention.kv_heads * attention.head_dim
    width = 2 if load.half else 4
    adapted = shape.linear_layers(attention)
    inputs = sum(i for i, _ in adapted) if load.half or load.dropout else 2 * h + f
    masks = (1 if load.half else 4) * inputs if load.dropout else 0
    norms = shape.norms * (4 * h + 4)
    if shape.head_norms:
        norms += 4 * q + 4 * attention.heads
        norms += attention.keys * (1 + shape.value_norms) * (4 * k + 4 * attention.kv_heads)
    kept = width * (4 * q + load.sequence) + 4 * attention.heads
    return norms + masks + width * (len(adapted) * load.rank + inputs + 3 * f + 3 * shape.side) + kept
