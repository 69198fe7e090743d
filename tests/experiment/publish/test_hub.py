"""What is sent to the Hub, by a stand-in that knows the real client's signatures: private, and only what is listed."""

from __future__ import annotations

import inspect
import shutil
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from huggingface_hub import Collection, DatasetInfo, HfApi, ModelInfo
from huggingface_hub.utils import filter_repo_objects

from experiment.publish import hub
from experiment.publish.folder import write_published
from experiment.publish.hub import description, send, shipments, title
from scripts import publish
from store.console import run_command
from store.run import RunFolder
from task.errors import InputError

PRIVATE = SimpleNamespace(private=True, siblings=[], tags=[])


class Hub:
    """Records calls; each must be one that the real client would take."""

    def __init__(self, found: Any = PRIVATE, refused: str | None = None, collection_private: bool = True) -> None:
        self.calls: list[tuple[str, dict[str, Any]]] = []
        self._found, self._refused = found, refused
        self._collection = SimpleNamespace(private=collection_private, slug="me/run-123", url="https://hub/me/run-123")

    def __getattr__(self, name: str) -> Any:
        signature = inspect.signature(getattr(HfApi, name))

        def call(*given: Any, **named: Any) -> Any:
            bound = signature.bind(self, *given, **named).arguments
            self.calls.append((name, {key: value for key, value in bound.items() if key != "self"}))
            if name == self._refused:
                raise RuntimeError("401 Client Error\nwith more lines")
            return {"repo_info": self._found, "create_collection": self._collection}.get(name)

        return call

    def of(self, name: str) -> list[dict[str, Any]]:
        return [values for called, values in self.calls if called == name]


@pytest.fixture
def use(monkeypatch: pytest.MonkeyPatch) -> Any:
    """Puts a hub in the place of the client, with somebody logged in."""

    def used(found: Hub) -> Hub:
        monkeypatch.setattr(hub, "HfApi", lambda: found)
        monkeypatch.setattr(hub, "get_token", lambda: "hf_of_a_test")
        return found

    return used


def test_what_is_asked_of_the_clients_answers_is_there():
    for kind in (DatasetInfo, ModelInfo):
        assert {"private", "siblings", "tags"} <= {*inspect.get_annotations(kind)}
    assert {"slug", "private"} <= {*inspect.get_annotations(Collection)}
    assert "url" in inspect.get_annotations(Collection) or isinstance(
        inspect.getattr_static(Collection, "url"), property
    )


def test_both_repositories_and_their_collection_are_private(trained: RunFolder, use: Any):
    published, there = write_published(trained.path), use(Hub())
    assert send(published.folder, published.record, "me/run") == "https://hub/me/run-123"
    made = there.of("create_repo")
    assert [(c["repo_id"], c["repo_type"], c["private"]) for c in made] == [
        ("me/run", "dataset", True),
        ("me/run-adapters", "model", True),
    ]
    [collection] = there.of("create_collection")
    assert collection["private"] is True and collection["namespace"] == "me"
    assert len(collection["title"]) < 60 and len(collection["description"]) <= 150
    items = [(c["item_id"], c["item_type"]) for c in there.of("add_collection_item")]
    assert items == [("me/run", "dataset"), ("me/run-adapters", "model")]
    names = [name for name, _ in there.calls]
    assert names.index("upload_folder") > max(i for i, name in enumerate(names) if name in ("create_repo", "repo_info"))
    assert {*names} <= {"create_repo", "repo_info", "create_collection", "upload_folder", "add_collection_item"}


def test_every_file_goes_to_one_repository(trained: RunFolder, use: Any):
    published, there = write_published(trained.path), use(Hub())
    send(published.folder, published.record, "me/run")
    data, adapters = there.of("upload_folder")
    everything = {p.relative_to(published.folder).as_posix() for p in published.folder.rglob("*") if p.is_file()}
    sent = {*filter_repo_objects(everything, allow_patterns=data["allow_patterns"])}
    assert sent == {name for name in everything if not name.startswith("adapters/")}
    inside = {name.removeprefix("adapters/") for name in everything - sent}
    assert adapters["folder_path"] == published.folder / "adapters"
    assert {*filter_repo_objects(inside, allow_patterns=adapters["allow_patterns"])} == inside
    assert {"README.md", "instilled/adapter_model.safetensors"} < inside


def test_a_run_without_adapters_is_one_repository(made: Path, tmp_path: Path, use: Any):
    published, there = write_published(made, tmp_path / "out"), use(Hub())
    send(published.folder, published.record, "me/run")
    assert len(there.of("create_repo")) == len(there.of("add_collection_item")) == 1


@pytest.mark.parametrize(
    ("answers", "says"),
    [
        ({"found": SimpleNamespace(private=False, siblings=[], tags=[])}, "me/run: is there already and public; "),
        ({"found": SimpleNamespace(private=None, siblings=[], tags=[])}, "me/run: is there already and public; "),
        (
            {"found": SimpleNamespace(private=True, siblings=[SimpleNamespace(rfilename="theirs.csv")], tags=["x"])},
            "me/run: holds what this command did not send; ",
        ),
        ({"collection_private": False}, "collection me/run-123: is there already and public; "),
        ({"refused": "create_repo"}, r"not sent, or in part \(401 Client Error\)"),
        ({"refused": "repo_info"}, r"not sent, or in part \(401 Client Error\)"),
    ],
)
def test_nothing_is_uploaded_where_it_would_not_be_private_or_not_ours(
    made: Path, tmp_path: Path, use: Any, answers: dict[str, Any], says: str
):
    published, there = write_published(made, tmp_path / "out"), use(Hub(**answers))
    with pytest.raises(InputError, match=says) as told:
        send(published.folder, published.record, "me/run")
    assert len(str(told.value).splitlines()) == 1 and not there.of("upload_folder")


def test_a_repository_that_this_command_filled_is_filled_again(made: Path, tmp_path: Path, use: Any):
    ours = SimpleNamespace(
        private=True, siblings=[SimpleNamespace(rfilename="README.md")], tags=["self-interpretability"]
    )
    published, there = write_published(made, tmp_path / "out"), use(Hub(ours))
    send(published.folder, published.record, "me/run")
    assert there.of("upload_folder")


def test_the_collections_texts_are_cut_to_what_the_hub_takes(made: Path, tmp_path: Path):
    record = write_published(made, tmp_path / "out").record.model_copy(update={"name": "n" * 90, "seed": 4294967295})
    assert len(title(record)) < 60 and len(description(record)) <= 150


def command(monkeypatch: pytest.MonkeyPatch, *words: str) -> None:
    monkeypatch.setattr(sys, "argv", ["publish.py", *words])
    run_command(publish.main)


def test_without_to_nothing_leaves_the_machine_and_what_would_is_said(
    trained: RunFolder, use: Any, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
):
    there = use(Hub())
    command(monkeypatch, "--run", str(trained.path))
    out = capsys.readouterr().out
    assert not there.calls and "nothing was sent" in out
    assert "would be sent, private: dataset NAMESPACE/NAME, " in out
    assert "would be sent, private: model NAMESPACE/NAME-adapters, " in out
    for part in shipments(trained.published, "me/run"):
        for name, size in part.files.items():
            assert f"  {name}  {size / 1e3:,.1f} kB\n" in out


@pytest.mark.parametrize(
    "name", ["run", "a/b/c", "/etc", "../../evil", "me/", "me/ru n", "me/run..x", "me/" + "n" * 300]
)
def test_what_is_no_repository_is_said_before_anything_is_written(
    run: RunFolder, use: Any, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], name: str
):
    there = use(Hub())
    with pytest.raises(SystemExit):
        command(monkeypatch, "--run", str(run.path), "--to", name)
    err = capsys.readouterr().err
    assert "no name of a repository; give NAMESPACE/NAME" in err and len(err.splitlines()) == 1
    assert not there.calls and not run.published.exists()


def test_without_a_login_it_is_one_line(
    run: RunFolder, use: Any, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
):
    there = use(Hub())
    monkeypatch.setattr(hub, "get_token", lambda: None)
    with pytest.raises(SystemExit):
        command(monkeypatch, "--run", str(run.path), "--to", "me/run")
    err = capsys.readouterr().err
    assert "no token of the Hugging Face Hub here; log in first: hf auth login" in err and len(err.splitlines()) == 1
    assert not there.calls and not run.published.exists()


def test_with_to_it_is_sent_and_the_collection_is_named(
    run: RunFolder, use: Any, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
):
    there = use(Hub())
    command(monkeypatch, "--run", str(run.path), "--to", "me/run")
    assert "sent: https://hub/me/run-123" in capsys.readouterr().out and there.of("upload_folder")
    shutil.rmtree(run.published)
