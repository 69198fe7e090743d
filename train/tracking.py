"""Weights & Biases without ceremony: offline by default, online when this machine is logged in.

Curves of a training that is killed and started again stay one curve.
"""

from __future__ import annotations

import os
import re
import secrets
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from tempfile import TemporaryFile
from typing import TYPE_CHECKING, Any, Literal, get_args

from store.console import warn
from store.files import read_json, write_json
from store.settings import Settings, validated
from task.errors import shown

if TYPE_CHECKING:
    from transformers import Trainer, TrainerCallback, TrainerState

Mode = Literal["online", "offline", "disabled"]
"""A mode of W&B."""

MODES: dict[str, Mode] = {
    "online": "online",
    "offline": "offline",
    "disabled": "disabled",
    "run": "online",
    "dryrun": "offline",
}
"""Modes of W&B by what WANDB_MODE says; the last two are older names."""

STARTS = "wandb.json"
"""File in a training's folder, see `Starts`."""


class Starts(Settings):
    """The id of a training's W&B run, and how often the training was started."""

    id: str
    starts: int = 0


def prepare_wandb(folder: Path) -> str:
    """Set W&B's mode and folder where the user has not; returns the mode. What cannot be used is replaced with a word.

    Runs are written to the folder's subfolder `wandb`, unless WANDB_DIR says; sent later by `wandb sync`.
    """
    os.environ.setdefault("WANDB_PROJECT", "self-interpretability")
    os.environ.setdefault("WANDB_SILENT", "true")
    # Code and console output are in the run's folder or nobody's business; an address of git may hold a token.
    os.environ.setdefault("WANDB_DISABLE_CODE", "true")
    os.environ.setdefault("WANDB_DISABLE_GIT", "true")
    os.environ.setdefault("WANDB_CONSOLE", "off")
    os.environ.setdefault("WANDB_INIT_TIMEOUT", "60")
    os.environ["WANDB_MODE"] = _mode(os.environ.get("WANDB_MODE"))
    _make_folder(Path(os.environ.setdefault("WANDB_DIR", str(folder))), folder)
    return os.environ["WANDB_MODE"]


def _mode(asked: str | None) -> Mode:
    """The mode for what WANDB_MODE says. Online without a login, W&B would ask for a key, and wait."""
    if asked not in (None, *MODES):
        warn(f"WANDB_MODE={shown(asked)} is none of {', '.join(MODES)}; going on offline")
    mode = MODES.get(asked or "online", "offline")
    if mode != "online" or logged_in():
        return mode
    if asked is not None:
        warn(f"WANDB_MODE={asked} without a login; going on offline (log in with: wandb login)")
    return "offline"


def _make_folder(asked: Path, folder: Path) -> None:
    """Make sure that W&B can write where it is told to, or tell it `folder`."""
    try:
        asked.mkdir(parents=True, exist_ok=True)
        with TemporaryFile(dir=asked):
            return
    except OSError as error:
        warn(f"WANDB_DIR={shown(str(asked))} cannot be written ({error.strerror}); writing to {folder}")
    folder.mkdir(parents=True, exist_ok=True)
    os.environ["WANDB_DIR"] = str(folder)


def logged_in() -> bool:
    """Whether W&B finds a login by itself: in the environment, in netrc or in its settings. No server is asked."""
    # Loading it takes a second, which whoever only plans a run is spared
    import wandb
    from wandb.sdk import wandb_setup
    from wandb.sdk.lib import wbauth

    try:
        host = wandb_setup.singleton().settings.base_url
        found = wbauth.authenticate_session(host=host, source="login", prompt=False, update_session=False)
    except Exception as error:  # a key of another form, settings that are no settings, a home that cannot be read
        warn(f"W&B: {reason_of(error)}; counts as not logged in")
        return False
    finally:
        wandb.teardown()  # it would keep to the settings that it has just read
    return found is not None


def reason_of(error: Exception) -> str:
    """What W&B says of an error, on one line, without a name and password in an address."""
    first = next((line.strip() for line in str(error).splitlines() if line.strip()), type(error).__name__)
    return re.sub(r"//[^/@\s]+@", "//", first).rstrip(".")[:200]


def begin_tracking(trainer: Trainer, folder: Path, name: str, step: int) -> None:
    """Start the W&B run of this start of a training; to be called by the main process, after `prepare_wandb`.

    Online all starts are one W&B run. Offline no run can be gone on with, and a killed process takes the last
    32 KiB of its log with it: each start is a run of its own in the same group, which begins with all that was logged
    until `step`, that of the checkpoint that it goes on from, so that the last one holds the whole curve.

    Whatever keeps W&B from starting costs the training nothing: it goes on offline, or without W&B.
    """
    path = folder / STARTS
    before = validated(read_json(path), Starts, path) if path.exists() else Starts(id=secrets.token_hex(8))
    now = Starts(id=before.id, starts=before.starts + 1)
    write_json(path, now.model_dump())
    again = f"{name} (start {now.starts}, from step {step})" if now.starts > 1 else name
    one_run = {"name": name, "id": os.environ.get("WANDB_RUN_ID", now.id), "resume": "allow"}
    mode = start_wandb({"online": one_run, "offline": {"name": again}})
    trainer.args.run_name = again if mode == "offline" else name
    if mode == "offline" and now.starts > 1:
        trainer.add_callback(earlier_curves())


def start_wandb(arguments: Mapping[str, Mapping[str, Any]]) -> Mode:
    """Start a W&B run in the mode that `prepare_wandb` has set, or in the next one that can be.

    Args:
        arguments: Of `wandb.init`, by mode.

    Returns:
        The mode of the run.
    """
    modes = get_args(Mode)
    mode: Mode = "disabled"
    for mode in modes[modes.index(os.environ["WANDB_MODE"]) :]:
        os.environ["WANDB_MODE"] = mode
        if _started(mode, arguments.get(mode, {})):
            break
    return mode


def _started(mode: Mode, arguments: Mapping[str, Any]) -> bool:
    import wandb

    try:
        wandb.init(project=os.environ["WANDB_PROJECT"], mode=mode, **arguments)
    except Exception as error:  # it raises what it likes: for the network, the disk, a setting, its own process
        after = {"online": "going on offline, send it later with: wandb sync"}.get(mode, "going on without W&B")
        warn(f"W&B cannot be started {mode} ({reason_of(error)}); {after}")
        with suppress(Exception):
            wandb.teardown()  # the next try begins anew
        return False
    return True


def earlier_curves() -> TrainerCallback:
    """A callback that logs what earlier starts had logged until the checkpoint that the training goes on from."""
    # Loading them takes seconds, which whoever only wants `prepare_wandb` is spared
    import wandb
    from transformers import TrainerCallback
    from transformers.integrations.integration_utils import rewrite_logs

    class EarlierCurves(TrainerCallback):
        def on_train_begin(self, args: Any, state: TrainerState, control: Any, **kwargs: Any) -> None:
            # under the names that transformers' own callback, which has started W&B by now, gives them
            for entry in state.log_history:
                values = {key: value for key, value in entry.items() if key != "step"}
                wandb.log({**rewrite_logs(values), "train/global_step": entry["step"]})

    return EarlierCurves()
