"""Write a weighted sum of adapters as one plain adapter, which every engine serves like a trained one.

    python -m train.derived --config runs/controls-seed0/stages/swapped.derive.yaml

The sum `sum_i w_i * s_i * B_i A_i` of low-rank changes is exactly one low-rank change: the A's stacked, and beside each
other the B's, each multiplied by its number and its adapter's scaling. This is what PEFT's `add_weighted_adapter` does
with `combination_type="cat"`; here it is done on the files, without the base model's weights, and with a number for
each layer and matrix.
"""

from __future__ import annotations

import argparse
import json
import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

from store.checkpoints import ADAPTER
from store.console import run_command, say
from store.derived import DeriveConfig, Term, layer_count, layers_named
from store.files import read_json, write_json
from store.locks import held
from store.lora import ADAPTER_CONFIG as CONFIG
from store.lora import LoraSettings, adapter_hash, read_lora
from store.manifests import BaseModelRecord, DerivedFacts, read_manifest
from store.models import check_adapter, fingerprint, model_folder
from store.settings import read_settings
from store.stages import Stage
from task.errors import InputError

FACTOR = re.compile(r"base_model\.model\.(?P<matrix>.+)\.lora_(?P<embedding>embedding_)?(?P<factor>[AB])(?:\.weight)?")
"""Name of a factor in an adapter's file."""


@dataclass(frozen=True)
class Factors:
    """The change of one matrix.

    Attributes:
        a: Shape (rank, in); of an embedding (rank, vocabulary).
        b: Shape (out, rank), with all that multiplies the change.
        embedding: Whether the matrix is an embedding, whose factors have other names.
    """

    a: Tensor
    b: Tensor
    embedding: bool

    @property
    def rank(self) -> int:
        """Rows of A."""
        return self.a.shape[0]

    def padded(self, rank: int) -> Factors:
        """The same change at a higher rank: rows and columns of zeros."""
        more = rank - self.rank
        a, b = self.a.new_zeros(more, self.a.shape[1]), self.b.new_zeros(self.b.shape[0], more)
        return Factors(torch.cat([self.a, a]), torch.cat([self.b, b], dim=1), self.embedding)


def scaling(lora: LoraSettings) -> float:
    """What an adapter's B A is multiplied by: alpha / r, or alpha / sqrt(r) with rank-stabilised LoRA."""
    return lora.lora_alpha / (math.sqrt(lora.r) if lora.use_rslora else lora.r)


def read_factors(adapter: Path) -> dict[str, Factors]:
    """The changes that an adapter makes, by the name of the matrix in the model, in float32, its scaling in B."""
    scale, found = scaling(read_lora(adapter)), {}
    tensors = load_file(adapter / ADAPTER)
    for name, tensor in tensors.items():
        named = FACTOR.fullmatch(name)
        if not named:
            raise InputError(f"{adapter / ADAPTER}: tensor {name!r} is no factor of LoRA; train the adapter again")
        if named["factor"] == "A":
            embedding = named["embedding"] is not None
            partner = name.replace("lora_embedding_A", "lora_embedding_B") if embedding else name.replace("_A.", "_B.")
            found[named["matrix"]] = Factors(tensor.float(), tensors[partner].float() * scale, embedding)
    return found


def weighted_sum(terms: Sequence[tuple[Term, Mapping[str, Factors]]], layers: int) -> dict[str, Factors]:
    """The sum of adapters: the changes of every matrix that any of them has, all of one rank.

    Args:
        terms: The adapters with their numbers.
        layers: How many layers the base model has.
    """
    total: dict[str, Factors] = {}
    for matrix in sorted({name for _, factors in terms for name in factors}):
        weighted = [(term.weight(matrix, layers), own[matrix]) for term, own in terms if matrix in own]
        # A matrix that is taken by none stays in the file as zeros: the adapter names all that it could change.
        kept = [(w, f) for w, f in weighted if w] or [(0.0, weighted[0][1])]
        a = torch.cat([f.a if w else torch.zeros_like(f.a) for w, f in kept])
        total[matrix] = Factors(a, torch.cat([w * f.b for w, f in kept], dim=1), kept[0][1].embedding)
    rank = max(f.rank for f in total.values())
    return {matrix: f.padded(rank) for matrix, f in total.items()}


def write_adapter(folder: Path, total: Mapping[str, Factors], like: Path) -> None:
    """Write changes of one rank as an adapter of PEFT, with the further settings of the adapter `like`."""
    tensors = {}
    for matrix, factors in total.items():
        ends = ("lora_embedding_A", "lora_embedding_B") if factors.embedding else ("lora_A.weight", "lora_B.weight")
        for end, tensor in zip(ends, (factors.a, factors.b), strict=True):
            tensors[f"base_model.model.{matrix}.{end}"] = tensor.contiguous()
    rank = next(iter(total.values())).rank
    changed = {
        "r": rank,
        "lora_alpha": rank,
        "use_rslora": False,
        "lora_dropout": 0.0,
        "target_modules": sorted(total),
        "layers_to_transform": None,
        "layers_pattern": None,
        "exclude_modules": None,
    }
    write_json(folder / CONFIG, {**read_json(like / CONFIG), **changed})
    save_file(tensors, folder / ADAPTER, metadata={"format": "pt"})


def derive(config: DeriveConfig, overwrite: bool = False) -> DerivedFacts:
    """Write a derived adapter with its manifest.

    Raises:
        InputError: An adapter is missing or of another base model, a range of layers is none, or no matrix is meant.
    """
    base = model_folder(config.model, config.revision)
    for term in config.terms:
        check_adapter(Path(term.adapter), base, config.model)
    record = BaseModelRecord(name=config.model, revision=config.revision, fingerprint=fingerprint(base))
    inputs = {"base": record.fingerprint, "terms": [_term_inputs(term) for term in config.terms]}
    with held(Path(config.output)):
        stage = Stage(Path(config.output), inputs, overwrite, settings=config.model_dump())
        if stage.finished:
            return read_manifest(stage.folder, DerivedFacts).facts
        total = _sum(config, base)
        write_adapter(stage.folder, total, Path(config.terms[0].adapter))
        changed = sum(bool(f.b.any()) for f in total.values())
        rank = next(iter(total.values())).rank
        stage.finish(facts := DerivedFacts(base=record, rank=rank, matrices=len(total), changed=changed))
        return facts


def _sum(config: DeriveConfig, base: Path) -> dict[str, Factors]:
    """The changes of all terms together; a range of layers that is none is said with the folder that wanted it."""
    layers = layer_count(base)
    loaded = [(term, read_factors(Path(term.adapter))) for term in config.terms]
    try:
        check_patterns(loaded, layers)
        return weighted_sum(loaded, layers)
    except ValueError as error:
        raise InputError(f"{config.output}: {error}") from None


def check_patterns(terms: Sequence[tuple[Term, Mapping[str, Factors]]], layers: int) -> None:
    """Refuse a part whose layers the model lacks, or whose names fit no matrix of its adapter: they are misspelt.

    Layers in which the adapter has no matrix are taken: such a cut leaves nothing of it.

    Raises:
        ValueError: With the patterns.
    """
    for term, factors in terms:
        for part in term.parts:
            if part.layers is not None:
                layers_named(part.layers, layers)
            named = part.model_copy(update={"layers": None})
            if not any(named.covers(matrix, layers) for matrix in factors):
                raise ValueError(
                    f"{term.adapter}: no matrix is called {' or '.join(part.matrices or ['anything'])}; "
                    f"it has {min(factors)} and {len(factors) - 1} others"
                )


def _term_inputs(term: Term) -> dict[str, Any]:
    """What the sum depends on of an adapter; its folder may move."""
    folder = Path(term.adapter)
    parts = json.loads(json.dumps([part.model_dump() for part in term.parts]))
    return {"adapter": adapter_hash(folder), "parts": parts}


def main() -> None:
    """Command line: `--config FILE.yaml ... [--overwrite]`."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--config", type=Path, nargs="+", required=True, help="one or more sums, one after the other")
    parser.add_argument("--overwrite", action="store_true", help="redo it where an earlier result differs")
    arguments = parser.parse_args()
    for config in [read_settings(file, DeriveConfig) for file in arguments.config]:
        facts = derive(config, arguments.overwrite)
        say(f"{config.output}: rank {facts.rank}, changes {facts.changed} of {facts.matrices} matrices")


if __name__ == "__main__":
    run_command(main)
