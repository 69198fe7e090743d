"""Every command of the README and of docs/ is taken by the program that it names."""

from __future__ import annotations

import argparse
import importlib
import re
import shlex
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from pages import BLOCKS, DOCS, Block
from support import ROOT


def commands() -> Iterator[tuple[str, list[str]]]:
    """Page and words of every command, in blocks and within a line; environment variables before it left out."""
    inline = [Block(page, "bash", m) for page in DOCS for m in re.findall(r"(?<!`)`(python [^`]+)`", DOCS[page])]
    for page, kind, text in [*BLOCKS, *inline]:
        for line in text.replace("\\\n", " ").splitlines() if kind == "bash" else []:
            words = shlex.split(line, comments=True)
            while words and re.fullmatch(r"[A-Z_]+=.*", words[0]):
                words = words[1:]
            if words:
                yield page, words


COMMANDS = list({shlex.join(words): (page, words) for page, words in commands()}.values())


class Parsed(Exception):
    """A command line that a parser took."""

    def __init__(self, values: argparse.Namespace) -> None:
        super().__init__()
        self.values = values


@pytest.fixture
def parse(monkeypatch: pytest.MonkeyPatch) -> Callable[[str, list[str]], argparse.Namespace | None]:
    """A function from a module and its arguments to what its own parser makes of them; nothing is carried out."""
    original = argparse.ArgumentParser.parse_args

    def parse_args(self: argparse.ArgumentParser, *given: Any) -> None:
        raise Parsed(original(self, *given))

    def parse_command(module: str, arguments: list[str]) -> argparse.Namespace | None:
        if (ROOT / module.replace(".", "/")).is_dir():
            module = f"{module}.__main__"
        path = ROOT / f"{module.replace('.', '/')}.py"
        assert path.is_file() and 'if __name__ == "__main__":' in path.read_text()
        monkeypatch.setattr(sys, "argv", [str(path), *arguments])
        if module == "train.sft":
            return parse_training(arguments)
        if module == "scripts.doctor":
            assert not arguments
            return None
        if module == "store.contexts":
            importlib.import_module(module).main()
            return None
        with monkeypatch.context() as patched, pytest.raises(Parsed) as found:
            patched.setattr(argparse.ArgumentParser, "parse_args", parse_args)
            importlib.import_module(module).main()
        return found.value.values

    return parse_command


def parse_training(arguments: list[str]) -> None:
    from train.arguments import parse_arguments

    if arguments == ["--help"]:
        return
    if arguments[0] == "--config":  # a file that the launcher writes
        assert re.fullmatch(r"runs/[\w-]+/stages/\w+\.sft\.yaml", arguments[1]) and not arguments[2:]
    else:
        parse_arguments()


def script_module(path: str) -> str:
    return path.removesuffix(".py").replace("/", ".")


@pytest.mark.parametrize(("page", "words"), COMMANDS, ids=[shlex.join(words)[:70] for _, words in COMMANDS])
def test_every_command_is_taken_by_the_program_that_it_names(page: str, words: list[str], parse: Any):
    program, *arguments = words
    if program == "python":
        module = arguments.pop(0)
        check_values(parse(arguments.pop(0) if module == "-m" else script_module(module), arguments))
    elif program == "accelerate":
        from accelerate.commands.launch import launch_command_parser

        launch = launch_command_parser().parse_args(arguments[1:])
        assert arguments[0] == "launch" and launch.training_script == "train/sft.py"
        parse("train.sft", launch.training_script_args)
    elif program == "sbatch":
        script = next(i for i, word in enumerate(arguments) if not word.startswith("--"))
        assert all(re.fullmatch(r"--(array|nodes|gres)=\S+", option) for option in arguments[:script])
        called = {"stage": "experiment.stage", "run_experiment": "scripts.run_experiment"}
        assert (ROOT / arguments[script]).is_file()
        check_values(parse(called[Path(arguments[script]).stem], arguments[script + 1 :]))
    elif program == "make":
        makefile = (ROOT / "Makefile").read_text()
        assert arguments and all(re.search(rf"^{target}:", makefile, re.MULTILINE) for target in arguments)
    elif program == "pip":
        import tomllib

        extras = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["optional-dependencies"]
        assert arguments[:2] == ["install", "-e"] and arguments[2].strip(".[]") in extras
    elif program == "wandb":
        from wandb.cli.cli import cli

        assert arguments[0] in cli.commands and re.fullmatch(r"runs/[\w-]+/wandb/offline-run-\*", arguments[1])
    elif program == "cp":
        assert (ROOT / arguments[0]).is_file() and len(arguments) == 2
    elif program == "pytest":
        assert arguments and all((ROOT / path).is_file() for path in arguments)
    else:
        assert words in (["source", ".venv/bin/activate"], ["mkdir", "-p", "logs"])


def check_values(values: argparse.Namespace | None) -> None:
    """Names of stages, which no parser knows, are such as there are."""
    from experiment.stage import kind_of

    only = (
        getattr(values, "only", []) if hasattr(values, "experiment") else []
    )  # a check of a GPU has lines, not stages
    asked = [*getattr(values, "stages", []), *only, *(getattr(values, "overwrite", None) or [])]
    for stage in asked:
        assert kind_of(stage)


def test_the_readme_has_the_commands_that_everybody_needs():
    shown = {shlex.join(words) for page, words in commands() if page == "README.md"}
    replication = "python scripts/run_experiment.py configs/experiments/replication.yaml"
    assert {"make demo", "make test", replication, f"{replication} --status"} <= shown
    assert any(line.startswith(f"{replication} --launcher slurm") for line in shown)
