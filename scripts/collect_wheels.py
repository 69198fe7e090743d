"""Gather, where there are package registries, the wheels that a GPU machine without them lacks.

    python -m scripts.collect_wheels wheels                                   # here
    python3 -m pip list --format=freeze > have.txt                            # there, if that can be asked
    python -m scripts.collect_wheels wheels --have have.txt                   # here: what it has is left out
    python3 -m pip install --no-index --no-deps --find-links wheels wheels/*.whl    # there

The machine is one with torch, transformers, peft and accelerate on Python 3.12 and x86-64 Linux. They, what they need
and NVIDIA's libraries are never gathered, whatever their versions there. All else comes in the versions that are
installed here, which the tests have seen together. Where that is larger than the limit, the largest packages that
nothing here asks for by name are left out and named.
"""

from __future__ import annotations

import argparse
import importlib.metadata
import subprocess
import sys
from collections.abc import Callable, Collection, Iterable, Mapping
from pathlib import Path

from packaging.requirements import Requirement
from packaging.utils import canonicalize_name, parse_wheel_filename

from store.console import run_command, say
from task.errors import InputError

WANTED = ("trl", "datasets", "wandb", "xgrammar", "arviz-stats", "pydantic", "rich", "tqdm")
"""What is asked for by name; all else is what these need."""

THERE = ("torch", "transformers", "peft", "accelerate", "numpy", "triton")
"""What the machine has, with all that these need in turn."""

PYTHON = "3.12"
PLATFORMS = tuple(f"manylinux{version}_x86_64" for version in ("_2_28", "_2_27", "_2_24", "_2_17", "2014", "1"))
LIMIT_MB = 40.0

Needs = Callable[[str], Iterable[str] | None]
"""From a package's name to the requirements that it states, None where it is not installed."""


def installed_needs(name: str) -> list[str] | None:
    """What an installed package states that it needs."""
    try:
        return importlib.metadata.requires(name) or []
    except importlib.metadata.PackageNotFoundError:
        return None


def closure(names: Iterable[str], python: str, needs: Needs) -> set[str]:
    """Some packages and all that they need in turn on the other machine, by canonical name."""
    environment = {"python_version": python, "platform_system": "Linux", "sys_platform": "linux", "extra": ""}
    found: set[str] = set()
    waiting = [canonicalize_name(name) for name in names]
    while waiting:
        if (name := waiting.pop()) not in found:
            found.add(name)
            stated = [Requirement(line) for line in needs(name) or ()]
            kept = (r for r in stated if r.marker is None or r.marker.evaluate(environment))
            waiting += [canonicalize_name(requirement.name) for requirement in kept]
    return found


def lacking(have: Iterable[str], python: str, needs: Needs) -> list[str]:
    """What the machine lacks: neither there with torch and the like, nor NVIDIA's, nor named among what it has."""
    # Another version of what is there need not need the same: what is asked for by name is gathered with all of it.
    there = closure(THERE, python, lambda name: () if name in WANTED else needs(name)) - {*WANTED}
    there |= {canonicalize_name(name) for name in have}
    wanted = closure(WANTED, python, lambda name: () if name in there else needs(name))
    return sorted(name for name in wanted - there if not name.startswith(("nvidia-", "cuda-")))


def read_have(path: Path) -> list[str]:
    """Names of the packages in the output of `pip list --format=freeze`."""
    if not path.is_file():
        raise InputError(f"--have {path}: no such file; write it there with: python3 -m pip list --format=freeze")
    return [line.partition("==")[0].strip() for line in path.read_text(encoding="utf-8").splitlines() if "==" in line]


def left_out(sizes: Mapping[str, int], limit: float, named: Collection[str]) -> list[str]:
    """Which packages to leave out, largest first, so that the rest is within a limit.

    Args:
        sizes: Bytes by canonical name.
        limit: Bytes.
        named: Packages that are left out only once nothing else is left.
    """
    asked = {canonicalize_name(name) for name in named}
    order = sorted(sizes, key=lambda name: (name in asked, -sizes[name]))
    total, found = sum(sizes.values()), []
    for name in order:
        if total <= limit:
            break
        total -= sizes[name]
        found.append(name)
    return found


def download(names: Iterable[str], folder: Path, python: str) -> dict[str, Path]:
    """Fetch the wheel of each package, in the version that is installed here, into a folder.

    Returns:
        The files by canonical name.

    Raises:
        InputError: pip finds no such wheel, or reaches no registry.
    """
    pins = [
        f"{name}=={importlib.metadata.version(name)}" if installed_needs(name) is not None else name for name in names
    ]
    platforms = [word for name in PLATFORMS for word in ("--platform", name)]
    how = ["--only-binary=:all:", "--implementation", "cp", "--python-version", python, *platforms]
    command = [sys.executable, "-m", "pip", "download", "--quiet", "--no-deps", "--dest", str(folder), *how, *pins]
    result = subprocess.run(command, capture_output=True, text=True)
    if result.returncode:
        said = [line for line in result.stderr.splitlines() if line.startswith("ERROR")] or ["it says nothing"]
        raise InputError(f"pip download failed ({said[-1]}); run this where a package registry can be reached")
    return {parse_wheel_filename(path.name)[0]: path for path in folder.glob("*.whl")}


def main() -> None:
    """Command line: `FOLDER [--have FILE] [--limit MB] [--python VERSION]`."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path, help="where the wheels go; empty, or not there yet")
    parser.add_argument("--have", type=Path, help="what the machine has: its `pip list --format=freeze`")
    parser.add_argument("--limit", type=float, default=LIMIT_MB, help=f"most megabytes (default: {LIMIT_MB:.0f})")
    parser.add_argument("--python", default=PYTHON, help=f"Python of the machine (default: {PYTHON})")
    asked = parser.parse_args()
    if asked.folder.exists() and any(asked.folder.iterdir()):
        raise InputError(f"{asked.folder}: not empty, and wheels of two versions stop an installation; give another")
    asked.folder.mkdir(parents=True, exist_ok=True)
    have = read_have(asked.have) if asked.have else []
    wheels = download(lacking(have, asked.python, installed_needs), asked.folder, asked.python)
    sizes = {name: path.stat().st_size for name, path in wheels.items()}
    dropped = left_out(sizes, asked.limit * 1e6, WANTED)
    for name in dropped:
        wheels[name].unlink()
    kept = sorted((size, name) for name, size in sizes.items() if name not in dropped)
    for size, name in reversed(kept):
        say(f"{size / 1e6:8.2f} MB  {name}")
    say(f"{sum(size for size, _ in kept) / 1e6:8.2f} MB  together, {len(kept)} wheels in {asked.folder}")
    for name in dropped:
        say(f"left out: {name} ({sizes[name] / 1e6:.1f} MB); the machine must have it, or raise --limit")
    say(f"there: python3 -m pip install --no-index --no-deps --find-links {asked.folder} {asked.folder}/*.whl")


if __name__ == "__main__":
    run_command(main)
