"""Spoiled settings: experiment, model, wording, site and launch files, in every node. `FUZZ=20` tries many more."""

from __future__ import annotations

import copy
import io
import random
import re
from collections import Counter
from collections.abc import Callable, Iterator
from functools import cache
from pathlib import Path
from typing import Any

import pytest
import yaml
from rich.console import Console

from analysis.run import write_analysis
from eval.engines import make_engine
from eval.runner import evaluate
from experiment import templates, tokens
from experiment.file import load_experiment
from experiment.launcher import plan_runs
from experiment.plan import Run
from experiment.prepare import check_launch_file, check_settings, prepare
from experiment.show import show_plan
from experiment.slurm.chain import chain
from experiment.slurm.site import Site
from experiment.slurm.submit import sbatch_command
from fuzzing import LONGER, End, end_of, nothing_written_outside, show_counts
from store.evaluation import EvalConfig, PlantedArm
from store.model_file import ModelFile, read_model_file
from store.settings import read_settings
from store.summary import read_summary
from store.wordings import WordingText
from support import ROOT
from task.errors import InputError
from task.prompts import DEFAULT, PROMPTS

CONFIGS = ROOT / "configs"

Place = tuple[str | int, ...]

SPOILED: dict[str, Any] = {
    "null": None,
    "text": "something else",
    "empty text": "",
    "yes": True,
    "number": 3,
    "zero": 0,
    "negative": -1,
    "fraction": 0.5,
    "huge": 10**30,
    "beyond floats": 10**400,
    "large": 1e300,
    "NaN": float("nan"),
    "infinite": float("inf"),
    "list": [1, "a"],
    "empty list": [],
    "table": {"a": 1},
    "empty table": {},
    "another folder": "../../evil",
    "absolute": "/tmp/evil",
    "long": "x" * 300,
    "lines": "a\nb",
    "surrogate": "\ud800",
    "colour": "[red]x[/red]",
    "date": "2024-01-01",
}
"""What is put in a node's place, beside nothing at all."""


def places(node: Any, before: Place = ()) -> Iterator[Place]:
    """The way to each node of a document."""
    if before:
        yield before
    if isinstance(node, dict):
        for key, value in node.items():
            yield from places(value, (*before, key))
    elif isinstance(node, list):
        for number, value in enumerate(node):
            yield from places(value, (*before, number))


def spoil(document: Any, place: Place, how: str) -> Any:
    """A copy of a document that is spoiled in one place."""
    found = copy.deepcopy(document)
    inner = found
    for key in place[:-1]:
        inner = inner[key]
    last = place[-1]
    if how == "deleted":
        del inner[last]
    elif how == "twice":
        if isinstance(inner, list):
            inner.append(copy.deepcopy(inner[last]))
        else:
            inner[f"{last}_fold_1"] = copy.deepcopy(inner[last])
    elif how.startswith("key "):
        inner[SPOILED[how.removeprefix("key ")]] = inner.pop(last)
    else:
        inner[last] = SPOILED[how]
    return found


def ways(place: Place) -> list[str]:
    """How a node can be spoiled."""
    keys = ["empty text", "another folder", "absolute", "long", "lines", "surrogate", "yes", "number", "null"]
    return ["deleted", "twice", *SPOILED, *(f"key {k}" for k in keys if isinstance(place[-1], str))]


def spoiled(document: Any, count: int, seed: int) -> Iterator[tuple[str, str]]:
    """(What was done, the text of the spoiled file); the same ones each time, and all of them with a large `FUZZ`."""
    draw = random.Random(seed)
    todo = [(place, how) for place in places(document) for how in ways(place)]
    for place, how in todo if count * LONGER >= len(todo) else draw.sample(todo, count * LONGER):
        yield f"{how} at {'.'.join(map(str, place))}", yaml.dump(spoil(document, place, how), sort_keys=False)


def read(path: Path) -> Any:
    """A file of configs/ as it is."""
    return yaml.safe_load((CONFIGS / path).read_text())


def small(name: str) -> dict[str, Any]:
    """An experiment of configs/experiments/ with one seed and few contexts."""
    values: dict[str, Any] = read(Path("experiments") / f"{name}.yaml")
    for group in values["contexts"].values():
        group["count"] = 3
    return {**values, "seeds": [0]}


def looked_at(file: Path, runs: Path) -> list[Run]:
    """What `--dry-run` does, without a terminal."""
    planned = plan_runs(file, runs)
    for run in planned:
        check_settings(run)
        show_plan(run, Console(file=io.StringIO(), width=100))
        run.record.model_dump_json()
    return planned


def model_of(file: Path, runs: Path) -> None:
    """The demo with a model file."""
    (file.parent / "demo.yaml").write_text(yaml.safe_dump({**small("demo"), "model": str(file)}))
    looked_at(file.parent / "demo.yaml", runs)


def wording_of(file: Path, runs: Path) -> None:
    """The simulation in the words of a file."""
    (file.parent / "words.yaml").write_text(yaml.safe_dump({**small("simulated"), "wording": str(file)}))
    looked_at(file.parent / "words.yaml", runs)


def site_of(file: Path, runs: Path) -> None:
    """The chain of jobs of a simulation on a site."""
    site = read_settings(file, Site)
    [run] = plan_runs(CONFIGS / "experiments" / "simulated.yaml", runs)
    for job in chain(run, site, site.train.launch_file, ()):
        sbatch_command(run.folder, job, site, dict.fromkeys(job.after, "1"))
    site.environment()


def launch_of(file: Path, runs: Path) -> None:
    """A launch configuration before a training."""
    check_launch_file(file)


def without_base(name: str) -> dict[str, Any]:
    """A model file that says everything itself."""
    return read_model_file(CONFIGS / "models" / f"{name}.yaml").model_dump(mode="json", exclude_none=True)


def wording() -> dict[str, Any]:
    """Our own words as a wording file."""
    own = {measure: PROMPTS[measure][DEFAULT[measure]] for measure in DEFAULT}
    return {m: {key: getattr(words, key) for key in WordingText.model_fields} for m, words in own.items()}


KINDS: dict[str, tuple[Callable[[], Any], Callable[[Path, Path], object], int]] = {
    "simulated": (lambda: small("simulated"), looked_at, 60),
    "demo": (lambda: small("demo"), looked_at, 25),
    "organism": (lambda: small("organism"), looked_at, 20),
    "model": (lambda: without_base("organism"), model_of, 16),
    "published model": (lambda: {**without_base("qwen2.5-7b-instruct"), "name": "models/organism"}, model_of, 16),
    "wording": (wording, wording_of, 16),
    "site": (lambda: read(Path("slurm/site.yaml")), site_of, 80),
    "launch": (lambda: read(Path("accelerate/fsdp2.yaml")), launch_of, 60),
}
"""Files: what they say unspoiled, what reads them, and how many are spoiled in CI."""


@pytest.fixture(scope="module", autouse=True)
def one_tokenizer() -> Iterator[None]:
    """Loading a tokenizer takes most of a dry run's time."""
    with pytest.MonkeyPatch.context() as patch:
        load = templates.tokenizer_at_hand
        kept = cache(lambda name: load(ModelFile(name=name)))
        patch.setattr(templates, "tokenizer_at_hand", lambda model: kept(model.name))
        patch.setattr(tokens, "tokenizer_at_hand", lambda model: kept(model.name))
        yield


@pytest.mark.parametrize("kind", KINDS)
def test_spoiled_settings_are_planned_or_one_line(kind: str, tmp_path: Path):
    make, reads, count = KINDS[kind]
    document, file, ends = make(), tmp_path / "files" / "spoiled.yaml", Counter[End]()
    file.parent.mkdir()
    file.write_text(yaml.dump(document, sort_keys=False))
    assert end_of(lambda: reads(file, tmp_path / "runs"), f"{kind} as it is") == "worked"
    with nothing_written_outside(tmp_path, file.parent):
        for what, text in spoiled(document, count, seed=len(kind)):
            file.write_text(text)
            ends[end_of(lambda: reads(file, tmp_path / "runs"), f"{kind}: {what}")] += 1
    show_counts(kind, ends)
    assert ends["refused"]


@pytest.mark.parametrize("name", ["simulated", "demo"])
def test_a_line_twice_is_refused_wherever_it_stands(name: str, tmp_path: Path):
    lines = yaml.dump(small(name), sort_keys=False).splitlines(keepends=True)
    keys = [number for number, line in enumerate(lines) if re.fullmatch(r" *\w+: \S.*\n", line)]
    for number in keys if LONGER > 1 else keys[:: len(keys) // 12]:
        (tmp_path / "x.yaml").write_text("".join([*lines[:number], lines[number], *lines[number:]]))
        with pytest.raises(InputError, match=rf"x.yaml:{number + 2}: key '\w+' stands in line {number + 1} already"):
            load_experiment(tmp_path / "x.yaml")
    assert len(keys) > 20


EXTREMES: dict[str, dict[str, Any]] = {
    "as it is": {},
    "one pair": {"per_context": 1},
    "two contexts": {"count": 2},
    "the largest seed": {"seed": 2**32 - 1},
    "the longest name": {"name": "x" * 64},
    "sharp": {"sharpness": 1e300},
    "reversed": {"sharpness": -1e300},
    "noisy": {"noise": 1e6, "report_noise": 1e6},
    "one letter": {"position_bias": 1e300, "decided_contexts": 0},
    "no letter": {"no_letter": 1, "unreadable": 1},
    "no numbers": {"not_finite": 1},
}
"""What is just within what settings take."""


@pytest.mark.parametrize("name", EXTREMES if LONGER > 1 else ["no letter"])
def test_what_the_dry_run_accepts_runs_from_end_to_end(name: str, tmp_path: Path):
    change = dict(EXTREMES[name])
    values = small("simulated")
    for group in values["contexts"].values():
        group["count"] = change.get("count", 3)
    for measurement in values["measurements"]:
        measurement["per_context"] = change.get("per_context", 4)
    values |= {"seeds": [change.get("seed", 0)], "name": change.get("name", "small")}
    arm = {key: value for key, value in change.items() if key in PlantedArm.model_fields}
    values["planted"] = {key: {**planted, **arm} for key, planted in values["planted"].items()}
    (tmp_path / "x.yaml").write_text(yaml.safe_dump(values))
    [run] = looked_at(tmp_path / "x.yaml", tmp_path / "runs")
    with nothing_written_outside(tmp_path, tmp_path / "runs"):
        prepare(run, overwrite=False)
        config = read_settings(run.folder.stage_config("evaluate"), EvalConfig)
        evaluate(make_engine(config), config, quiet=True)
        write_analysis(run.folder.path)
    assert read_summary(run.folder.analysis / "summary.json").seed == run.seed
