"""The card of an adapter: what it was made from and how well it learned, written beside it as README.md."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from huggingface_hub import CommitOperationAdd, HfApi, ModelCard, ModelCardData

from store.checkpoints import ADAPTER
from store.files import read_json
from store.manifests import TrainingFacts
from store.provenance import provenance
from task.errors import InputError
from train.arguments import TrainingInputs

METRICS = {
    "eval_letter_accuracy": "letter accuracy",
    "eval_agreement": "agreement",
    "eval_share_a": "share of A",
    "eval_letter_mass": "P(A) + P(B)",
    "eval_loss": "loss",
}

# Named one by one: a setting that is not in the list, such as a path or a token, can never end in a card.
SETTINGS = ("learning_rate", "lr_scheduler_type", "warmup_steps", "num_train_epochs", "effective_batch_size", "seed")
LORA = ("lora_r", "lora_alpha", "lora_target_modules", "use_rslora")

UPLOADED = ("README.md", "adapter_config.json", ADAPTER)

TEMPLATE = """---
{{ card_data }}
---

# LoRA adapter of {{ base }}

It was trained by [self-interpretability](https://arxiv.org/abs/2505.17120) experiments to {{ purpose }}. It is a
research artefact: it takes on preferences made up at random, and is of no use outside the experiment.

```python
from peft import PeftModel
from transformers import AutoModelForCausalLM

base = AutoModelForCausalLM.from_pretrained("{{ base }}")
model = PeftModel.from_pretrained(base, "FOLDER_OF_THIS_FILE")
```

## Base

{{ base }}, revision {{ facts.base.revision or "main" }}, fingerprint {{ inputs.base }}{{ quantised }}. {{ start }}

## Data

{{ facts.counts.train }} examples, {{ decisions }} of them decisions (the answer is a letter), the others reports of
weights (content hash {{ inputs.train_file }}); {{ facts.counts.validation }} held-out examples.

## Training

{{ facts.steps }} steps{{ kept }}.{{ stopped }}

| setting | value |
|---|---|
{{ settings }}

## Held out

{{ metrics }}

## Licence

{{ licence }}

## Made with

{{ versions }}
"""


def write_card(
    folder: Path, base: str, licence: str | None, decisions: int, inputs: TrainingInputs, facts: TrainingFacts
) -> None:
    """Write README.md into an adapter's folder; the same training writes the same file.

    Args:
        folder: The adapter's folder.
        base: Published name of the base model.
        licence: The base model's, in the Hub's spelling.
        decisions: How many training examples are decisions.
        inputs: What the adapter is a function of.
        facts: Of its manifest.
    """
    data = ModelCardData(
        base_model=base,
        library_name="peft",
        license=licence,
        pipeline_tag="text-generation",
        tags=["lora", "self-interpretability", "sft", "trl"],
    )
    values = {**inputs.sft, **inputs.lora, "dtype": inputs.dtype, "template": inputs.template or None}
    shown = {name: values[name] for name in (*SETTINGS, *LORA, "dtype", "template") if values.get(name) is not None}
    measured = {label: facts.metrics[key] for key, label in METRICS.items() if key in facts.metrics}
    card = ModelCard.from_template(
        data,
        template_str=TEMPLATE,
        base=base,
        purpose="decide by given attribute weights" if decisions else "report the weights that it decides by",
        decisions=decisions,
        inputs=inputs,
        facts=facts,
        kept=f"; these are the weights of step {facts.kept.step}, the best on held-out examples" if facts.kept else "",
        stopped=f" Stopped early at {facts.stopped_early}." if facts.stopped_early else "",
        quantised=f", held in {inputs.quantised}" if inputs.quantised else "",
        start=f"It goes on from an adapter of content hash {inputs.adapter}." if inputs.adapter else "",
        settings="\n".join(f"| {name} | {_plain(value)} |" for name, value in shown.items()),
        metrics=_metrics_table(measured),
        licence=f"The base model's licence applies to what is derived from it: {licence or 'see the base model'}.",
        versions=", ".join(f"{name} {version}" for name, version in provenance()["packages"].items()),
    )
    card.save(folder / "README.md")


def _plain(value: Any) -> str:
    return ", ".join(sorted(value)) if isinstance(value, list) else str(value)


def _metrics_table(measured: Mapping[str, float]) -> str:
    if not measured:
        return "Nothing was held out."
    rows = "\n".join(f"| {label} | {value:.3f} |" for label, value in measured.items())
    return f"| held-out examples | |\n|---|---|\n{rows}"


def upload_adapter(folder: Path, base: str, repository: str) -> str:
    """Upload adapter and card to a private repository on the Hub; returns its address.

    Manifests and logs stay here. The adapter's configuration goes with the published name of its base in place of a
    local folder.

    Raises:
        InputError: The Hub cannot be reached or refuses; the adapter itself is saved.
    """
    config = {**read_json(folder / "adapter_config.json"), "base_model_name_or_path": base}
    contents: dict[str, bytes] = {name: (folder / name).read_bytes() for name in UPLOADED}
    contents["adapter_config.json"] = json.dumps(config, indent=2, sort_keys=True).encode()
    api = HfApi()
    try:
        api.create_repo(repository, private=True, exist_ok=True)
        operations = [CommitOperationAdd(name, content) for name, content in contents.items()]
        return str(api.create_commit(repository, operations, commit_message="Adapter and model card").repo_url)
    except Exception as error:  # the Hub client raises a dozen kinds, all of which mean: not uploaded
        reason = str(error).strip().splitlines()[0][:160]
        raise InputError(
            f"hub_repository {repository}: not uploaded ({reason}); the adapter is in {folder}. "
            "Log in (hf auth login) and give the same command again"
        ) from None
