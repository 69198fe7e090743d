"""Released files, spoiled: one line with the place, or the same trials; what is read otherwise is counted in a note."""

from __future__ import annotations

import csv
import gzip
import io
import json
import re
import shutil
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from released_layout import CONTEXTS, MODEL, REPORT_FILES, write_release

from analysis.released import write_released
from analysis.study.released_files import ReleasedData, load_model
from fuzzing import LONGER, End, end_of, nothing_written_outside, show_counts
from task.errors import InputError

SELECTED = (f"{MODEL}_instilled_selections.csv", f"{MODEL}_instilled_latent_selections.csv")
REPORTED = tuple(f"{MODEL}{suffix}.csv" for suffix in REPORT_FILES.values())
TABLES = (*SELECTED, *REPORTED, "instilled_weights.csv", "scenarios.csv")
CANDIDATES = "candidate_scenarios.json"

NO_NUMBERS = ("", "1_000", "0x1f", "٣", "inf", "nan", "5%", "1,5", "--5", "1e999", "½", "x" * 300, "../../evil", "/etc")
NO_NAMES = ("", "TAUGHT-1", "../../evil", "/tmp/x", "y" * 300, "\x1b[31m", "nobody\nnowhere")

Rows = list[list[str]]
Mutation = Callable[[Rows, np.random.Generator], None]


def numeric(rows: Rows, rng: np.random.Generator) -> tuple[int, int]:
    """The place of a number that is read."""
    reports = any(name.startswith("report_") for name in rows[0])
    pattern = r"report_attr\d" if reports else r"[AB]_attribute_\d|attr\d_m..|attr\d"
    read = [c for c, name in enumerate(rows[0]) if re.fullmatch(pattern, name) and re.fullmatch(r"[-.\d]+", rows[1][c])]
    return int(rng.integers(1, len(rows))), int(rng.choice(read))


def set_number(text: str) -> Mutation:
    def mutate(rows: Rows, rng: np.random.Generator) -> None:
        row, column = numeric(rows, rng)
        rows[row][column] = text

    return mutate


def written_otherwise(form: str) -> Mutation:
    def mutate(rows: Rows, rng: np.random.Generator) -> None:
        row, column = numeric(rows, rng)
        rows[row][column] = form.format(rows[row][column])

    return mutate


def set_name(text: str) -> Mutation:
    def mutate(rows: Rows, rng: np.random.Generator) -> None:
        rows[int(rng.integers(1, len(rows)))][rows[0].index("scenario")] = text

    return mutate


def repeat(count: int) -> Mutation:
    def mutate(rows: Rows, rng: np.random.Generator) -> None:
        start = int(rng.integers(1, len(rows)))
        rows.extend([*row] for row in rows[start : start + count])

    return mutate


def repeat_with_other_values(rows: Rows, rng: np.random.Generator) -> None:
    row, column = numeric(rows, rng)
    again = [*rows[row]]
    again[column] = str(float(again[column]) / 2 + 1)
    rows.append(again)


def lower(rows: Rows, rng: np.random.Generator) -> None:
    if "selection" in rows[0]:
        row, column = rng.integers(1, len(rows)), rows[0].index("selection")
        rows[row][column] = f" {rows[row][column].lower()}"


def reorder(rows: Rows, rng: np.random.Generator) -> None:
    order = rng.permutation(len(rows[0]))
    rows[:] = [[row[i] for i in order] for row in rows]


def same_column_twice(rows: Rows, rng: np.random.Generator) -> None:
    column = int(rng.integers(len(rows[0])))
    for row in rows:
        row.append(row[column])


def lose_column(rows: Rows, rng: np.random.Generator) -> None:
    column = numeric(rows, rng)[1]
    for row in rows:
        del row[column]


def lose_cell(rows: Rows, rng: np.random.Generator) -> None:
    del rows[int(rng.integers(len(rows)))][-1]


def lose_row(rows: Rows, rng: np.random.Generator) -> None:
    del rows[int(rng.integers(1, len(rows)))]


def turn_range(rows: Rows, rng: np.random.Generator) -> None:
    if "attr1_min" in rows[0]:
        low, high = rows[0].index("attr1_min"), rows[0].index("attr1_max")
        row = rows[int(rng.integers(1, len(rows)))]
        row[low], row[high] = row[high], row[low]


MUTATIONS: dict[str, Mutation] = {
    **{f"number {text[:20]!r}": set_number(text) for text in NO_NUMBERS},
    **{f"number as {form!r}": written_otherwise(form) for form in (" {} ", "{}e0", "{}.0e0", "{}%", "{}_0", "'{}'")},
    **{f"name {text[:20]!r}": set_name(text) for text in NO_NAMES},
    **{f"{count} rows again": repeat(count) for count in (1, 7, 10_000)},
    "a row again with other values": repeat_with_other_values,
    "a letter in lower case": lower,
    "columns in another order": reorder,
    "a column again": same_column_twice,
    "a column lost": lose_column,
    "a cell lost": lose_cell,
    "a row lost": lose_row,
    "a range turned": turn_range,
}

HARMS: dict[str, Callable[[bytes], bytes | None]] = {
    "gzip": gzip.compress,
    "UTF-16": lambda content: content.decode().encode("utf-16"),
    "latin-1": lambda content: content.replace(b"a", b"\xe9", 1),
    "byte order mark": lambda content: b"\xef\xbb\xbf" + content,
    "zero bytes": lambda content: content.replace(b"1", b"\0", 1),
    "CRLF": lambda content: content.replace(b"\n", b"\r\n"),
    "semicolons": lambda content: content.replace(b",", b";"),
    "tabs": lambda content: content.replace(b",", b"\t"),
    "blank lines": lambda content: content.replace(b"\n", b"\n\n"),
    "cut in a line": lambda content: content[: 2 * len(content) // 3],
    "header alone": lambda content: content[: content.index(b"\n") + 1],
    "empty": lambda content: b"",
    "a folder": lambda content: None,
    "an open quote": lambda content: content.replace(b"\n", b'\n"', 2),
    "a long field": lambda content: content + b"x" * 200_000 + b"\n",
}

IN_JSON: dict[str, Callable[[str], str]] = {
    "key twice": lambda text: text.replace('"units":', '"units": "x", "units":', 1),
    "NaN": lambda text: text.replace("10", "NaN", 1),
    "infinite": lambda text: text.replace("10", "1e999", 1),
    "text for a number": lambda text: text.replace("10", '"1_0"', 1),
    "range turned": lambda text: text.replace("[0, 10]", "[10, 0]", 1),
    "range changed": lambda text: text.replace("[0, 10]", "[0, 11]", 1),
    "range of three": lambda text: text.replace("[0, 10]", "[0, 5, 10]", 1),
    "context lost": lambda text: json.dumps(json.loads(text)[1:]),
    "context twice": lambda text: json.dumps([*json.loads(text), json.loads(text)[0]]),
    "attribute lost": lambda text: text.replace('"name":', '"nome":', 1),
    "attributes turned": lambda text: json.dumps(
        [{**r, "attributes": r["attributes"][::-1]} for r in json.loads(text)]
    ),
    "no list": lambda text: "{}",
    "half": lambda text: text[: len(text) // 2],
    "deep": lambda text: "[" * 9999,
    "surrogate": lambda text: text.replace('"points"', '"\\ud800"', 1),
    "long integer": lambda text: text.replace("10", "9" * 5000, 1),
}


@pytest.fixture(scope="module")
def release(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A release with units."""
    folder = tmp_path_factory.mktemp("release")
    write_release(folder)
    for place, name in enumerate(REPORTED):  # what each report was about differs, as in the paper's files
        rows = [*csv.reader(io.StringIO((folder / name).read_text()))]
        for i, row in enumerate(rows[1:]):
            row[-1] = str(1000 * place + i)
        write(folder / name, rows)
    records: list[dict[str, Any]] = [
        {
            "short_name": c.name,
            "attributes": [{"name": a.name, "units": a.units, "range": [a.low, a.high]} for a in c.attributes],
        }
        for c in CONTEXTS
    ]
    (folder / CANDIDATES).write_text(json.dumps(records))
    return folder


def write(path: Path, rows: Rows) -> None:
    with path.open("w", newline="", encoding="utf-8") as file:
        csv.writer(file).writerows(rows)


def facts(data: ReleasedData) -> list[Any]:
    """All that figures are computed from, in one order."""
    found: list[Any] = []
    for group, trials in data.decisions.items():
        ranges = [(c.lows.tolist(), c.spans.tolist()) for name in trials.contexts for c in [data.contexts[name]]]
        found += [group, trials.contexts, ranges, trials.difference, trials.log_odds, trials.shown, trials.reasons]
    for name, reports in data.reports.items():
        found += [name, reports.contexts, reports.values, reports.total, reports.reasons]
    targets = data.targets or {}
    return [*found, *([name, targets.get(name)] for name in data.decisions.get("instilled", OTHERS).contexts)]


class OTHERS:
    """No decisions."""

    contexts: tuple[str, ...] = ()


def is_same(found: Any, wanted: Any) -> bool:
    if isinstance(found, np.ndarray) and isinstance(wanted, np.ndarray):
        return np.array_equal(found, wanted, equal_nan=True)
    if isinstance(found, list) and isinstance(wanted, list):
        return len(found) == len(wanted) and all(map(is_same, found, wanted))
    return type(found) is type(wanted) and found == wanted


def counts(data: ReleasedData) -> list[Any]:
    """What the output says of how much was read."""
    reports = {name: (r.total.tolist(), r.reasons) for name, r in data.reports.items()}
    return [data.notes, reports, sorted(data.targets or {})]


def check(folder: Path, whole: ReleasedData, what: str) -> End:
    """Read a spoiled release: refused in one line, or read as the whole one, or counted."""
    found: list[ReleasedData] = []
    end = end_of(lambda: found.append(load_model(folder, MODEL)), what)
    if found and not is_same(facts(found[0]), facts(whole)):
        assert counts(found[0]) != counts(whole), f"{what}: other figures without a word"
    return end


def test_spoiled_released_files(release: Path, tmp_path: Path):
    whole, ends, rng = load_model(release, MODEL), Counter[End](), np.random.default_rng(13)
    assert whole.notes == []
    folder = tmp_path / "spoiled"
    with nothing_written_outside(tmp_path, folder):
        shutil.copytree(release, folder)
        for _ in range(LONGER):
            for what, mutate in MUTATIONS.items():
                for name in rng.choice(TABLES, size=2, replace=False).tolist():
                    rows = [*csv.reader(io.StringIO((release / name).read_text()))]
                    mutate(rows, rng)
                    write(folder / name, rows)
                    ends[check(folder, whole, f"{name}: {what}")] += 1
                    shutil.copy(release / name, folder)
        for what, harm in HARMS.items():
            for name in rng.choice([*TABLES, CANDIDATES], size=2, replace=False).tolist():
                content = harm((release / name).read_bytes())
                (folder / name).unlink()
                (folder / name).mkdir() if content is None else (folder / name).write_bytes(content)
                ends[check(folder, whole, f"{name}: {what}")] += 1
                if content is None:
                    (folder / name).rmdir()
                shutil.copy(release / name, folder)
        for what, change in IN_JSON.items():
            text = (release / CANDIDATES).read_text()
            (folder / CANDIDATES).write_text(changed := change(text))
            assert changed != text, what
            ends[check(folder, whole, f"{CANDIDATES}: {what}")] += 1
    show_counts("released files", ends)
    assert min(ends["worked"], ends["refused"]) > 20


def test_a_refused_release_leaves_no_output(release: Path, tmp_path: Path):
    shutil.copytree(release, tmp_path / "data")
    spoiled = tmp_path / "data" / REPORTED[-1]
    spoiled.write_bytes(spoiled.read_bytes().replace(b",", b";"))
    with nothing_written_outside(tmp_path), pytest.raises(InputError):
        write_released(tmp_path / "data", MODEL, tmp_path / "out")
