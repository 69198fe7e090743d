"""Steps of a training that are kept beside its end, whatever happens to the training."""

import shutil
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from store.checkpoints import ADAPTER, kept_adapter
from store.models import check_adapter
from support import make_tiny_model
from task.errors import InputError
from teaching import kept_by, left_by, manifest_of, settings, train_here
from train import keeping
from train.trainer.letters import LetterTrainer

Teach = Callable[..., Path]

FEW = {"eval_strategy": "no", "lr_scheduler_type": "constant", "max_steps": 4, "per_device_train_batch_size": 2}

STEPS = [1, 2, 3]


class Kill(BaseException):
    """What ends a training at once."""


def teach_in(folder: Path, model: Path, examples: Path, name: str, **more: Any) -> Path:
    """Carries out a training in this process and returns its folder."""
    values = settings(model, examples, folder / name, **{**FEW, **more})
    del values["validation_file"]
    return train_here(values)


@pytest.fixture
def teach(tiny_model: Path, examples: Path, tmp_path: Path) -> Teach:
    return partial(teach_in, tmp_path, tiny_model, examples)


@pytest.fixture(scope="module")
def whole(tiny_model: Path, examples: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return teach_in(tmp_path_factory.mktemp("adapters"), tiny_model, examples, "whole", keep_steps=STEPS)


def test_a_kept_step_is_the_adapter_of_a_training_that_ends_there(whole: Path, teach: Teach):
    assert manifest_of(whole).facts.kept_steps == STEPS
    assert [*kept_by(whole)] == [f"kept/{s}/{f}" for s in STEPS for f in ("adapter_config.json", ADAPTER)]
    short = teach("short", max_steps=2)
    for file in (ADAPTER, "adapter_config.json"):
        assert (kept_adapter(whole, 2) / file).read_bytes() == (short / file).read_bytes()
    assert manifest_of(short).facts.kept_steps is None and not (short / "kept").exists()


def test_a_kept_step_belongs_to_the_base_of_its_training(whole: Path, tiny_model: Path, tmp_path: Path):
    """By the fingerprint, so that the model may move; another model in the old place is told."""
    kept = kept_adapter(whole, 3)
    check_adapter(kept, tiny_model, str(tiny_model))
    check_adapter(kept, shutil.copytree(tiny_model, tmp_path / "moved"), "moved")
    other = make_tiny_model(tmp_path / "other", seed=1)
    with pytest.raises(InputError, match="trained on the base model"):
        check_adapter(kept, other, str(tiny_model))


def kill_in_draft(patch: pytest.MonkeyPatch, step: int) -> None:
    judge = keeping.not_learned

    def judged(file: Path, *rest: Any) -> str | None:
        if file.parent.name == f".{step}.tmp":
            raise Kill
        return judge(file, *rest)

    patch.setattr(keeping, "not_learned", judged)


def kill_at_checkpoint(patch: pytest.MonkeyPatch, step: int, after: bool) -> None:
    save = LetterTrainer._save_checkpoint

    def saved(self: LetterTrainer, *rest: Any) -> None:
        if self.state.global_step == step and not after:
            raise Kill
        save(self, *rest)
        if self.state.global_step == step:
            raise Kill

    patch.setattr(LetterTrainer, "_save_checkpoint", saved)


@pytest.mark.parametrize(
    ("kill", "from_step"),
    [
        (lambda patch: kill_in_draft(patch, 3), 2),
        (lambda patch: kill_at_checkpoint(patch, 2, after=False), None),
        (lambda patch: kill_at_checkpoint(patch, 2, after=True), 2),
    ],
    ids=["half written", "before its checkpoint", "after its checkpoint"],
)
def test_killed_at_any_moment_the_kept_steps_are_the_same(
    whole: Path,
    teach: Teach,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    kill: Any,
    from_step: int | None,
):
    """What a training that goes on otherwise (another GPU, an earlier stop) had kept beyond is not taken for kept."""
    killed, begun = tmp_path / "killed", []
    with monkeypatch.context() as patch, pytest.raises(Kill):
        kill(patch)
        teach("killed", keep_steps=STEPS)
    assert not (killed / "manifest.json").exists() and kept_adapter(killed, 1).is_dir()
    if from_step is None:
        shutil.copytree(kept_adapter(killed, 1), kept_adapter(killed, 3))
    begin = keeping.KeepSteps.on_train_begin

    def look(self: keeping.KeepSteps, *rest: Any, **more: Any) -> None:
        begin(self, *rest, **more)
        begun.extend(sorted(path.name for path in kept_adapter(killed, 0).parent.glob("*")))

    monkeypatch.setattr(keeping.KeepSteps, "on_train_begin", look)
    assert left_by(teach("killed", keep_steps=STEPS)) == left_by(whole)
    resumed = f"resuming from {killed / f'checkpoint-{from_step}'}" in capsys.readouterr().err
    assert resumed == (from_step is not None)
    assert begun == (["1", "2"] if from_step else []), "without what came after the checkpoint, and without drafts"


def test_other_steps_are_another_training_and_overwriting_clears_them(whole: Path, teach: Teach, tmp_path: Path):
    folder = shutil.copytree(whole, tmp_path / "out")
    with pytest.raises(InputError, match=r"keep_steps: \[1, 2, 3\] -> \[2\]"):
        teach("out", keep_steps=[2])
    assert kept_by(folder) == kept_by(whole)
    teach("out", keep_steps=[2], overwrite=True, max_steps=2)
    assert manifest_of(folder).facts.kept_steps == [2] and {p.name for p in (folder / "kept").iterdir()} == {"2"}


def test_a_step_beyond_the_end_is_refused_before_the_first_step(teach: Teach, tmp_path: Path):
    """Epochs say how many steps there are, which settings alone do not tell."""
    with pytest.raises(InputError, match="keep_steps 33: the training ends at step 32; give steps up to that"):
        teach("out", max_steps=-1, keep_steps=[4, 33])
    assert not [*(tmp_path / "out").glob("checkpoint-*")] and not (tmp_path / "out" / "kept").exists()


def test_an_adapter_that_has_learned_nothing_yet_is_not_kept(teach: Teach, capsys: pytest.CaptureFixture[str]):
    """In the first step of a warm-up the rate is 0; the line says so and the training goes on."""
    folder = teach("out", keep_steps=[1, 3], warmup_steps=4, lr_scheduler_type="constant_with_warmup")
    assert manifest_of(folder).facts.kept_steps == [3] and [p.name for p in (folder / "kept").iterdir()] == ["3"]
    assert "kept/1: step 1 is not kept: 14 of 14 factors of the adapter are still zero" in capsys.readouterr().err
