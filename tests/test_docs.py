"""README and docs: commands parse, paths and links exist, examples are run, and functions that are named are there."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
import yaml

from pages import BLOCKS, DOCS, PAGES, ROOMS, Block, block, resolve, stops
from support import ROOT


def test_every_block_is_of_a_kind_that_is_tested():
    known = {"bash", "yaml", "text"} | {f"json {name}" for name in ("contexts", "summary", "architecture")}
    known.add("yaml wording")
    known |= {f"python {name}" for name in ("trials", "wording", "engine")}
    assert {b.kind for b in BLOCKS} == known
    assert all(text.count("```") == 2 * sum(b.page == page for b in BLOCKS) for page, text in DOCS.items())


def test_the_readme_fits_and_says_its_words_before_it_uses_them():
    lines = DOCS["README.md"].splitlines()
    assert len(lines) <= 150
    words = lines.index("## Words")
    for word in ("arm", "run", "target weights", "learned weights", "native weights", "gate"):
        [said] = [i for i, line in enumerate(lines) if line.lower().startswith(f"- **{word}**")]
        assert said > words
        before = " ".join(lines[:words])
        assert not re.search(rf"\b{word}s?\b", before), f"{word} is used before it is explained"


def test_every_page_is_in_the_readme_and_is_short():
    for page in (ROOT / "docs").glob("*.md"):
        assert f"](docs/{page.name})" in DOCS["README.md"]
        assert len(DOCS[page.name].splitlines()) <= 155, page.name
        assert re.search(r"^For: ", DOCS[page.name], re.MULTILINE), page.name
        assert not re.search("[\U0001f000-\U0001faff\u2600-\u27bf\ufe0f]", DOCS[page.name]), page.name  # no emoji


def named_files() -> set[str]:
    """Files that a block of YAML is said to be, which a reader would write."""
    first = [b.text.splitlines()[0] for b in BLOCKS if b.kind == "yaml"]
    copies = {f"configs/experiments/{yaml.safe_load(b.text)['name']}.yaml" for b in BLOCKS if renames(b)}
    return copies | {m[1] for line in first if (m := re.fullmatch(r"# (configs/\S+)", line))}


def renames(found: Block) -> bool:
    return found.text.startswith("# in configs/experiments/") and "name" in yaml.safe_load(found.text)


NOTES = [path for folder in ("results", "scripts") for path in sorted((ROOT / folder).rglob("*.md"))]


@pytest.mark.parametrize("page", [*PAGES, *NOTES], ids=lambda path: str(path.relative_to(ROOT)))
def test_every_path_and_module_exists(page: Path):
    rooms = "|".join((*ROOMS, "configs", "tests", "results", "docs", "models/organism"))
    # The outline of architecture.md and the files of a run are checked below.
    text = re.sub(r"^```text\n.*?^```$", "", page.read_text(encoding="utf-8"), flags=re.MULTILINE | re.DOTALL)
    text = re.sub(r"`analysis/`|`analysis/summary\.json`", "", text)  # of a run
    paths = set(re.findall(rf"(?<![\w./~-])(?:{rooms})/(?:[\w./-]*\w)?", text)) - named_files()
    modules = set(re.findall(r"python -m ([\w.]+\w)", text))
    # From the top, or, as a link is, from the page's own folder.
    assert not [path for path in sorted(paths) if not ((ROOT / path).exists() or (page.parent / path).exists())]
    places = {name: ROOT / name.replace(".", "/") for name in modules}
    assert not [
        name
        for name, place in places.items()
        if not (place.with_suffix(".py").is_file() or (place / "__main__.py").is_file())
    ]
    assert paths or modules


@pytest.mark.parametrize("page", DOCS)
def test_every_link_leads_somewhere(page: str):
    folder = ROOT if page == "README.md" else ROOT / "docs"
    links = re.findall(r"\]\(([^)]+)\)", DOCS[page])
    for link in [link for link in links if not link.startswith("https://")]:
        path, _, anchor = link.partition("#")
        target = folder / path if path else folder / page
        assert target.exists(), link
        if anchor:
            headings = re.findall(r"^#+ (.+)$", target.read_text(encoding="utf-8"), re.MULTILINE)
            slugs = {re.sub(r"[^\w -]", "", heading.lower()).replace(" ", "-") for heading in headings}
            assert anchor in slugs, link


NAMES = sorted(
    {
        name
        for text in DOCS.values()
        for name in re.findall(rf"`((?:{'|'.join(ROOMS)})(?:\.\w+)+(?::[\w.]+)?)`", text)
        if not name.endswith((".jsonl", ".yaml"))
    }
)


@pytest.mark.parametrize("name", NAMES)
def test_every_name_in_the_code_exists(name: str):
    assert resolve(name) is not None


@pytest.mark.parametrize("heading", ["One trial, from YAML to report", "One training row, from YAML to report"])
def test_what_happens_to_a_trial_and_to_a_row_is_told_in_ten_stops(heading: str):
    found = stops(heading)
    assert 5 <= len(found) <= 10
    for functions in found:
        assert functions and all(callable(resolve(name)) for name in functions)


def test_the_outline_of_the_rooms_is_that_of_the_folders():
    [outline] = [b.text for b in BLOCKS if b.page == "architecture.md" and b.kind == "text"]
    rooms = dict(re.findall(r"^(\w+)/\s+(.*)$", outline, re.MULTILINE))
    assert {*ROOMS} <= {*rooms}
    for room, text in rooms.items():
        assert (ROOT / room).is_dir()
        inside = re.findall(r"(?<![\w/])(\w+)/", text)
        assert all((ROOT / room / folder).is_dir() for folder in inside), room
        shown = {p.name for p in (ROOT / room).glob("[a-z]*/") if p.is_dir() and room in ROOMS} - {"data"}
        assert shown == {*inside} or room not in ROOMS, room


def test_the_files_of_a_run_are_those_that_its_folder_names():
    from store.run import RunFolder

    run = RunFolder(Path("RUN"))
    paths = [run.record, run.jobs, run.inputs, run.stage_config("x"), run.log("x"), run.examples("x")]
    paths += [run.adapter("x"), run.learned("x"), run.trials, run.inside, run.analysis, run.published, run.tracked]
    paths += [run.path / "wandb"]
    [tree] = [b.text for b in BLOCKS if b.page == "reading_a_report.md" and b.kind == "text"]
    shown = re.findall(r"^    (\S+)", tree, re.MULTILINE)
    assert {name.rstrip("/") for name in shown} == {path.relative_to("RUN").parts[0] for path in paths}


def test_every_figure_of_a_summary_is_explained():
    from store.summary import AgreementSummary, ComparisonSummary, DecisionSummary, DifferenceSummary, RunSummary

    text = "".join(DOCS[f"{page}.md"] for page in ("statistics", "what_r_is_worth", "summary_json", "reading_a_report"))
    explained = {*re.findall(r"`(\w+)`", text), *re.findall(r'"(\w+)":', block("json summary"))}
    kinds = (RunSummary, ComparisonSummary, DecisionSummary, DifferenceSummary)
    assert not {name for kind in kinds for name in kind.model_fields} - explained
    table = {*re.findall(r"`(\w+)`", DOCS["statistics.md"])}
    assert not {*AgreementSummary.model_fields, *DecisionSummary.model_fields} - table
