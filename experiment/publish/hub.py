"""Send a published folder to the Hub: a dataset, a repository of adapters, and a collection of both, all private."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, Literal

from huggingface_hub import HfApi, get_token
from huggingface_hub.errors import HFValidationError
from huggingface_hub.utils import validate_repo_id  # type: ignore[attr-defined]

from experiment.publish.adapters import ADAPTERS, TAGS
from store.run import RunRecord
from task.errors import InputError, shown

SUFFIX: Final = "-adapters"
"""Follows the dataset's name in that of the repository of adapters."""

LONGEST_TITLE, LONGEST_DESCRIPTION = 59, 150
"""Characters that the Hub takes of a collection."""


@dataclass(frozen=True)
class Shipment:
    """What goes into one repository.

    Attributes:
        repository: NAMESPACE/NAME.
        kind: Of the repository.
        folder: What is sent.
        files: Its files, from there, with their sizes in bytes.
        note: What it is, for the collection.
    """

    repository: str
    kind: Literal["dataset", "model"]
    folder: Path
    files: dict[str, int]
    note: str


def shipments(folder: Path, repository: str) -> list[Shipment]:
    """What of a published folder goes where."""
    adapters = folder / ADAPTERS
    own = {name: size for name, size in _sizes(folder).items() if not name.startswith(f"{ADAPTERS}/")}
    found = [Shipment(repository, "dataset", folder, own, "All trials and weights of the run.")]
    if adapters.is_dir():
        note = "The adapters, one folder for each arm."
        found.append(Shipment(f"{repository}{SUFFIX}", "model", adapters, _sizes(adapters), note))
    return found


def _sizes(folder: Path) -> dict[str, int]:
    return {p.relative_to(folder).as_posix(): p.stat().st_size for p in sorted(folder.rglob("*")) if p.is_file()}


def title(record: RunRecord) -> str:
    """Title of the collection."""
    return f"Self-interpretability: {record.name}"[:LONGEST_TITLE]


def description(record: RunRecord) -> str:
    """What the collection is, in one sentence."""
    said = f"One run, seed {record.seed}: decisions, reports and weights of every arm, and the adapters that answered."
    return said[:LONGEST_DESCRIPTION]


def collection_note(record: RunRecord, adapters: bool) -> str:
    """The text of COLLECTION.md: what belongs together."""
    lines = [f"# {title(record)}", "", description(record), "", "- the dataset: all trials and weights, see README.md"]
    lines += [f"- the adapters: one folder for each arm, see {ADAPTERS}/README.md"] if adapters else []
    return "\n".join([*lines, ""])


def check_repository(repository: str) -> None:
    """Refuse what is no name of a repository, and a machine without a login.

    Raises:
        InputError: What is wrong, and the remedy.
    """
    try:
        validate_repo_id(f"{repository}{SUFFIX}")
    except HFValidationError:
        wrong = True
    else:
        wrong = repository.count("/") != 1
    if wrong:
        raise InputError(f"--to {shown(repository)}: no name of a repository; give NAMESPACE/NAME")
    if get_token() is None:
        raise InputError(f"--to {repository}: no token of the Hugging Face Hub here; log in first: hf auth login")


def send(folder: Path, record: RunRecord, repository: str) -> str:
    """Send a published folder; returns the address of the collection.

    Every repository is made and found private before the first file is sent.

    Raises:
        InputError: The Hub did not take it, or a repository of that name is public or holds something else.
    """
    api, sent = HfApi(), shipments(folder, repository)
    try:
        for part in sent:
            api.create_repo(part.repository, repo_type=part.kind, private=True, exist_ok=True)
            _check_own(part, api.repo_info(part.repository, repo_type=part.kind))
        collection = api.create_collection(
            title(record),
            namespace=repository.split("/")[0],
            description=description(record),
            private=True,
            exists_ok=True,
        )
        if not collection.private:
            raise InputError(f"collection {collection.slug}: is there already and public; make it private or delete it")
        for part in sent:
            api.upload_folder(
                repo_id=part.repository,
                repo_type=part.kind,
                folder_path=part.folder,
                commit_message=f"{record.name}",
                allow_patterns=[*part.files],
            )
            api.add_collection_item(collection.slug, part.repository, part.kind, note=part.note, exists_ok=True)
        return str(collection.url)
    except InputError:
        raise
    except Exception as error:  # the Hub client raises a dozen kinds, all of which mean: not sent
        reason = (str(error).strip() or type(error).__name__).splitlines()[0][:160]
        raise InputError(
            f"--to {repository}: not sent, or in part ({reason}); the folder is {folder}. Give the same command again"
        ) from None


def _check_own(part: Shipment, found: Any) -> None:
    """Refuse a repository that others can read, or that holds what this command did not put there."""
    if not found.private:
        raise InputError(f"{part.repository}: is there already and public; make it private, or give another name")
    files = {file.rfilename for file in found.siblings or ()} - {".gitattributes"}
    if files and not {*TAGS} <= {*(found.tags or ())}:
        raise InputError(f"{part.repository}: holds what this command did not send; give another name")
