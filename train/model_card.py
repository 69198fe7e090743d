"""The card of an adapter: what it was made from and how well it learned, written beside it as README.md."""

from __future__ import annotations

from pathlib import Path

from huggingface_hub import CommitOperationAdd, HfApi, ModelCard, ModelCardData

from store.checkpoints import ADAPTER
from store.lora import ADAPTER_CONFIG, config_to_share
from store.manifests import TrainingFacts
from store.provenance import provenance
from task.errors import InputError
from train.inputs import TrainingInputs

METRICS = {
    "eval_letter_accuracy": "letter accuracy",
    "eval_agreement": "agreement",
    "eval_share_a": "share of A",
    "eval_letter_mass": "P(A) + P(B)",
    "eval_loss": "loss",
}

# Named one by one: a setting that is not in the list, such as a path or a token, can never end in a card.
SETTINGS = (
    *("learning_rate", "lr_scheduler_type", "warmup_steps", "num_train_epochs", "effective_batch_size", "seed"),
    *("lora_r", "lora_alpha", "lora_dropout", "lora_target_modules", "use_rslora", "dtype", "template"),
)

UPLOADED = ("README.md", ADAPTER_CONFIG, ADAPTER)

TEMPLATE = Path(__file__).with_suffix(".md.j2")


def write_card(
    folder: Path, base: str, licence: str | None, decisions: int, inputs: TrainingInputs, facts: TrainingFacts
) -> None:
    """Write README.md into an adapter's folder; the same training writes the same file.

    `base` is the published name of the base model, `licence` the base model's in the Hub's spelling, and `decisions`
    the number of training examples that are decisions.
    """
    data = ModelCardData(
        base_model=base,
        library_name="peft",
        license=licence,
        pipeline_tag="text-generation",
        tags=["lora", "self-interpretability", "sft", "trl"],
    )
    values = {**inputs.sft, **inputs.lora, "dtype": inputs.dtype, "template": inputs.template or None}
    shown = {name: values[name] for name in SETTINGS if values.get(name) is not None}
    card = ModelCard.from_template(
        data,
        template_path=str(TEMPLATE),
        base=base,
        licence=licence,
        decisions=decisions,
        inputs=inputs,
        facts=facts,
        settings={name: ", ".join(sorted(map(str, v))) if isinstance(v, list) else v for name, v in shown.items()},
        measured={label: facts.metrics[key] for key, label in METRICS.items() if key in facts.metrics},
        packages=provenance()["packages"],
    )
    card.save(folder / "README.md")


def upload_adapter(folder: Path, base: str, repository: str) -> str:
    """Upload adapter and card to a private repository on the Hub; returns its address.

    Manifests and logs stay here. The adapter's configuration goes with the published name of its base in place of a
    local folder.
    """
    contents: dict[str, bytes] = {name: (folder / name).read_bytes() for name in UPLOADED}
    contents[ADAPTER_CONFIG] = config_to_share(folder, base)
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
