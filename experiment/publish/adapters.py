"""The adapters of a published run, each in a folder of its own with its card."""

from __future__ import annotations

import re
import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from huggingface_hub import ModelCard, ModelCardData

from store.checkpoints import ADAPTER
from store.derived import Part, parts_of
from store.lora import ADAPTER_CONFIG, adapter_hash, config_to_share
from store.manifests import AdapterFacts, read_manifest
from store.models import published_name
from store.paths import project_file
from store.run import RunFolder, RunRecord
from store.stages import begun
from task.errors import InputError

ADAPTERS: Final = "adapters"
"""Folder of the adapters; on the Hub, a repository of models."""

CARD = "README.md"

TEMPLATES = Path(__file__).parent
"""Folder of the cards' templates."""

TAGS = ["self-interpretability"]
"""Tag of all that is published; by it a repository is known as one that this command made."""


@dataclass(frozen=True)
class PublishedAdapter:
    """An adapter that is published: its arm, what made it, and the hash of its content."""

    arm: str
    made: str
    content: str


def base_name(record: RunRecord) -> str | None:
    """What the base model is called elsewhere, never a local path; None for a simulation."""
    if record.model is None:
        return None
    name = record.model.name
    if (folder := project_file(name)).is_dir():
        return published_name(name, folder)
    on_hub = re.fullmatch(r"[A-Za-z0-9][\w.-]*/[\w.-]+", name) and not name.startswith("models/")
    return name if on_hub else Path(name).name


def copy_adapters(run: RunFolder, record: RunRecord, draft: Path) -> list[PublishedAdapter]:
    """Copy the finished adapters of a run with their cards, and write a card of all of them; none for a simulation.

    Logs, manifests and tokenizers stay behind: they name places of this machine, or are the base model's.

    Raises:
        InputError: An adapter is not whole, or a file of it is a link.
    """
    base = base_name(record)
    arms = [name for name, arm in record.arms.items() if arm.training or arm.derived]
    finished = [name for name in arms if begun(run.adapter(name)) == "finished"]
    if base is None or not finished:
        return []
    found = []
    for name in finished:
        source, folder = run.adapter(name), draft / ADAPTERS / name
        if links := [file for file in (CARD, ADAPTER_CONFIG, ADAPTER) if (source / file).is_symlink()]:
            raise InputError(f"{source / links[0]}: a link, which may lead out of the run; put the file itself there")
        content = adapter_hash(source)  # reads and checks what is copied
        folder.mkdir(parents=True)
        (folder / ADAPTER_CONFIG).write_bytes(config_to_share(source, base))
        shutil.copyfile(source / ADAPTER, folder / ADAPTER)
        if record.arms[name].derived:
            derived_card(run, record, name, base).save(folder / CARD)
        else:
            shutil.copyfile(source / CARD, folder / CARD)
        found.append(PublishedAdapter(name, how_made(record, name), content))
    _card(record, base, "adapters.md.j2", run=record.name, adapters=found).save(draft / ADAPTERS / CARD)
    return found


def how_made(record: RunRecord, name: str) -> str:
    """What made an arm's adapter, in words."""
    arm = record.arms[name]
    if arm.derived:
        return f"a sum of adapters ({', '.join(arm.derived)}), not trained"
    start = f", on from {arm.start}" if arm.start else ""
    labels = f", labels: {arm.labels}" if arm.teach == "reports" and arm.labels else ""
    return f"trained on {arm.teach}{start}{labels}"


def derived_card(run: RunFolder, record: RunRecord, name: str, base: str) -> ModelCard:
    """The card of a sum of adapters: which adapters, and what each is multiplied by."""
    terms = [
        {"arm": arm, "part": Part.model_validate(part)}
        for arm, parts in (record.arms[name].derived or {}).items()
        for part in parts_of(parts)
    ]
    facts = read_manifest(run.adapter(name), AdapterFacts).facts
    return _card(record, base, "derived.md.j2", arm=name, facts=facts, terms=terms)


def _card(record: RunRecord, base: str, template: str, **values: Any) -> ModelCard:
    licence = record.model.licence if record.model else None
    data = ModelCardData(
        base_model=base,
        library_name="peft",
        license=licence,
        pipeline_tag="text-generation",
        tags=["lora", *TAGS],
    )
    return ModelCard.from_template(data, template_path=str(TEMPLATES / template), base=base, licence=licence, **values)
