"""README and docs: commands parse, paths and links exist, examples are run, and functions that are named are there."""

from __future__ import annotations

import argparse
import importlib
import json
import re
import shlex
import shutil
import sys
from collections.abc import Callable, Iterator
from functools import reduce
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pytest
import yaml

from experiment.file import load_experiment
from experiment.launcher import plan_runs
from experiment.slurm.site import Site
from store.model_file import ModelFile, read_model_file
from store.settings import read_settings
from support import ROOT

PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]
ROOMS = ("task", "store", "train", "eval", "analysis", "experiment", "scripts")
DOCS = {path.name: path.read_text(encoding="utf-8") for path in PAGES}


class Block(NamedTuple):
    """A fenced block: the page it is on, its language with what follows it, and its text."""

    page: str
    kind: str
    text: str


def fenced() -> Iterator[Block]:
    for page, text in DOCS.items():
        for kind, inside in re.findall(r"^```([^\n]+)\n(.*?)^```$", text, re.MULTILINE | re.DOTALL):
            yield Block(page, kind, inside)


BLOCKS = list(fenced())


def block(kind: str) -> str:
    [found] = [b.text for b in BLOCKS if b.kind == kind]
    return found


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


# --- commands


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

    asked = [*getattr(values, "stages", []), *getattr(values, "only", []), *(getattr(values, "overwrite", None) or [])]
    for stage in asked:
        assert kind_of(stage)


def test_the_readme_has_the_commands_that_everybody_needs():
    shown = {shlex.join(words) for page, words in commands() if page == "README.md"}
    replication = "python scripts/run_experiment.py configs/experiments/replication.yaml"
    assert {"make demo", "make test", replication, f"{replication} --status"} <= shown
    assert any(line.startswith(f"{replication} --launcher slurm") for line in shown)


# --- paths, links, names


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
    assert not [path for path in sorted(paths) if not (ROOT / path).exists()]
    assert not [name for name in sorted(modules) if not (ROOT / f"{name.replace('.', '/')}.py").is_file()]
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


def resolve(name: str) -> Any:
    """What `module:name` or `module.name` is.

    Raises:
        ImportError, AttributeError: There is no such thing.
    """
    module, _, inside = name.partition(":")
    if not inside and not (ROOT / f"{module.replace('.', '/')}.py").is_file():
        module, _, inside = module.rpartition(".")
    return reduce(getattr, inside.split(".") if inside else [], importlib.import_module(module))


NAMES = sorted(
    {
        name
        for text in DOCS.values()
        for name in re.findall(rf"`((?:{'|'.join(ROOMS)})(?:\.\w+)+(?::[\w.]+)?)`", text)
        if not name.endswith(".jsonl")
    }
)


@pytest.mark.parametrize("name", NAMES)
def test_every_name_in_the_code_exists(name: str):
    assert resolve(name) is not None


def stops(heading: str) -> list[list[str]]:
    """The functions that each stop of a way through the code names."""
    [section] = re.findall(rf"^## {heading}\n(.*?)(?=^## )", DOCS["architecture.md"], re.MULTILINE | re.DOTALL)
    found = re.findall(r"^(\d+)\. (.*(?:\n   .*)*)", section, re.MULTILINE)
    assert [int(number) for number, _ in found] == list(range(1, len(found) + 1))
    return [re.findall(r"`([\w.]+:[\w.]+)`", text) for _, text in found]


@pytest.mark.parametrize("heading", ["One trial, from YAML to report", "One training row, from YAML to report"])
def test_what_happens_to_a_trial_and_to_a_row_is_told_in_ten_stops(heading: str):
    found = stops(heading)
    assert 5 <= len(found) <= 10
    for functions in found:
        assert functions and all(callable(resolve(name)) for name in functions)


def test_a_trial_goes_the_way_that_is_told(checkout: Path):
    from analysis.pages.report import write_report
    from analysis.study.results import analyse

    told = [resolve(functions[0]).__code__ for functions in stops("One trial, from YAML to report")]
    called: dict[Any, int] = {}
    sys.setprofile(lambda frame, event, _: called.setdefault(frame.f_code, len(called)) if event == "call" else None)
    try:
        run = small_run("# in configs/experiments/simulated.yaml\nname: short\n", 6, checkout)
        evaluate_run(run)
        write_report(analyse(run.folder.path), [], checkout / "report.html")
    finally:
        sys.setprofile(None)
    assert [code for code in sorted(called, key=called.__getitem__) if code in told] == told


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
    paths += [run.adapter("x"), run.trials, run.analysis, run.tracked, run.path / "wandb"]
    [tree] = [b.text for b in BLOCKS if b.page == "reading_a_report.md" and b.kind == "text"]
    shown = re.findall(r"^    (\S+)", tree, re.MULTILINE)
    assert {name.rstrip("/") for name in shown} == {path.relative_to("RUN").parts[0] for path in paths}


def test_every_figure_of_a_summary_is_explained():
    from store.summary import AgreementSummary, ComparisonSummary, DecisionSummary, DifferenceSummary, RunSummary

    text = DOCS["statistics.md"] + DOCS["reading_a_report.md"]
    explained = {*re.findall(r"`(\w+)`", text), *re.findall(r'"(\w+)":', block("json summary"))}
    kinds = (RunSummary, ComparisonSummary, DecisionSummary, DifferenceSummary)
    assert not {name for kind in kinds for name in kind.model_fields} - explained
    table = {*re.findall(r"`(\w+)`", DOCS["statistics.md"])}
    assert not {*AgreementSummary.model_fields, *DecisionSummary.model_fields} - table


# --- YAML


def merged(base: Any, more: Any) -> Any:
    """What a fragment makes of a file: tables are merged, lists of entries get more of them, anything else is set."""
    if isinstance(base, dict) and isinstance(more, dict):
        return {**base, **{key: merged(base.get(key), value) for key, value in more.items()}}
    if isinstance(base, list) and isinstance(more, list) and any(isinstance(entry, dict) for entry in more):
        return base + more
    return more


@pytest.fixture
def checkout(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with the project's configurations, contexts and models, to which a reader may add files."""
    shutil.copytree(ROOT / "configs", tmp_path / "configs")
    for name in ("task", "models"):
        (tmp_path / name).symlink_to(ROOT / name)
    (tmp_path / "my").mkdir()
    for name in ("instilled", "native"):
        shutil.copy(ROOT / "task" / "data" / f"{name}.jsonl", tmp_path / "my")
    for text in [b.text for b in BLOCKS if b.kind == "yaml"]:
        if found := re.match(r"# (configs/models/\S+)\n", text):
            (tmp_path / found[1]).write_text(text)
    monkeypatch.chdir(tmp_path)
    return tmp_path


def write_yaml(text: str) -> Path:
    """A block as the file that its first line names, or as an addition to that file."""
    line = text.splitlines()[0]
    found = re.fullmatch(r"# (in )?(configs/\w+/[\w.-]+\.yaml)", line)
    assert found, f"the first line says neither which file this is nor which it is part of: {line}"
    path = Path(found[2])
    values = yaml.safe_load(text)
    path.write_text(yaml.safe_dump(merged(yaml.safe_load(path.read_text()), values) if found[1] else values))
    return path


YAML = [b for b in BLOCKS if b.kind == "yaml"]


@pytest.mark.parametrize("found", YAML, ids=[f"{b.page}-{b.text.splitlines()[0].split('/')[-1]}" for b in YAML])
def test_every_yaml_block_is_a_file_that_works(found: Block, checkout: Path):
    path = write_yaml(found.text)
    if path.parent.name == "models":
        model = read_model_file(path)
        from train.arguments import known_arguments

        assert isinstance(model, ModelFile)
        assert not {*model.sft, *model.decisions, *model.reports} - known_arguments()
    elif path.parent.name == "slurm":
        assert read_settings(path, Site).sbatch_options("train")
    else:
        experiment = load_experiment(path)
        runs = plan_runs(path, checkout / "runs")
        assert [run.seed for run in runs] == experiment.seeds
        for run in runs:
            assert run.record.comparisons and [stage.name for stage in run.stages][-3:] == [
                "evaluate",
                "analyse",
                "track",
            ]


def test_the_annotated_experiment_of_the_readme_makes_the_arms_that_it_says(checkout: Path):
    [text] = [b.text for b in YAML if b.page == "README.md"]
    first, second = plan_runs(write_yaml(text), checkout / "runs")
    assert (first.folder.name, second.folder.name) == ("small-seed0", "small-seed1")
    trained = [name for name, arm in first.record.arms.items() if arm.training]
    assert trained == ["instilled", "introspection_fold_1", "introspection_fold_2"]
    assert all("#" in line for line in text.splitlines() if re.match(r"\w+:", line) and not line.startswith("seeds"))


# --- examples that are run


def test_the_contexts_of_the_example_are_valid():
    from store.contexts import context_from_json
    from task.contexts import near_repetitions, problems

    contexts = [context_from_json(line, "docs") for line in block("json contexts").splitlines()]
    assert len(contexts) == 2 and not problems(contexts) and not near_repetitions(contexts)


def test_the_summary_of_the_example_is_one():
    from store.summary import FORMAT, ComparisonSummary, DecisionSummary, DifferenceSummary, GateSummary

    values = json.loads(block("json summary"))
    assert values["format"] == FORMAT
    assert GateSummary.model_validate(values["gate"]).passed
    for key, kind in (
        ("comparisons", ComparisonSummary),
        ("differences", DifferenceSummary),
        ("decisions", DecisionSummary),
    ):
        for entry in values[key].values():
            # Figures of a real run that anybody can repeat, rounded.
            assert kind.model_validate(entry)
    kept = json.loads((ROOT / "results" / "simulated" / "summary.json").read_text())
    real = kept.get("comparisons", kept)["instilled"]
    predictions = values["comparisons"]["instilled"].pop("predictions")
    shown = [(name, value, real[name]) for name, value in values["comparisons"]["instilled"].items()]
    shown += [(k, v, real["predictions"][kind][k]) for kind, found in predictions.items() for k, v in found.items()]
    for name, value, measured in shown:
        assert value == (pytest.approx(measured, rel=0.006) if isinstance(value, float) else measured), name


def test_the_model_of_the_example_passes_what_every_model_file_passes(checkout: Path):
    from experiment.capacity import problems
    from experiment.memory import shape_of

    [(stem, entry)] = json.loads(block("json architecture")).items()
    model = read_model_file(Path(f"configs/models/{stem}.yaml"))
    assert model.name == entry["name"]
    assert not list(problems(model, shape_of(entry["config"], entry["parameters"])))
    assert list(problems(model, None)) == ["architectures.json has no shape of this model"]


def small_run(text: str, contexts: int, checkout: Path) -> Any:
    """A run of an example on few contexts, begun."""
    from experiment.prepare import prepare

    path = write_yaml(text)
    values = yaml.safe_load(path.read_text())
    for group in values["contexts"].values():
        group["count"] = contexts
    path.write_text(yaml.safe_dump(values))
    [run] = plan_runs(path, checkout / "runs")
    prepare(run, overwrite=False)
    return run


def evaluate_run(run: Any) -> None:
    from eval.engines import make_engine
    from eval.runner import evaluate
    from store.evaluation import EvalConfig

    config = read_settings(run.folder.stage_config("evaluate"), EvalConfig)
    evaluate(make_engine(config), config, quiet=True)


def test_the_control_of_the_example_finds_what_is_planted(checkout: Path, capsys: pytest.CaptureFixture[str]):
    from analysis.study.results import analyse

    [text] = [b.text for b in YAML if b.page == "adding_things.md" and "planted:" in b.text]
    run = small_run(text, 40, checkout)
    evaluate_run(run)
    results = analyse(run.folder.path)
    by_name = {c.name: c.agreement for c in results.comparisons}
    assert results.gate.passed
    assert abs(by_name["reports_only"].r) < 0.2 and by_name["introspection_trained"].r > 0.6
    [gain] = [d.found for d in results.differences if d.name == "beyond_reports_only"]
    assert gain.boot_low > 0.3

    # The lines that read trials show the replies that could not be read.
    exec(block("python trials"), {})
    assert "I would rather not say." in capsys.readouterr().out


def test_the_wording_of_the_example_is_asked(checkout: Path, monkeypatch: pytest.MonkeyPatch):
    import task.prompts
    from store.trials import read_reports

    wording = eval(block("python wording"), vars(task.prompts))
    monkeypatch.setitem(task.prompts.PROMPTS["reports"], wording.name, wording)
    text = """# in configs/experiments/variants.yaml
measurements:
  - {arm: instilled, measure: reports, variant: blunt, contexts: [instilled], per_context: 1}
"""
    run = small_run(text, 6, checkout)
    evaluate_run(run)
    folder = run.folder.trials_of("instilled", "reports", "blunt")
    assert folder.name == "reports-blunt"
    assert "reports-blunt" in DOCS["adding_things.md"]
    assert not np.isnan(read_reports(folder).values).any()
    [context, *_] = run.groups["instilled"]
    prompt = task.prompts.frame("reports", context, "blunt").messages([], [])[1]["content"]
    assert "first answer" in prompt and "Option A" not in prompt and context.attribute_names[0] in prompt


def test_the_wording_file_of_the_example_is_asked(checkout: Path):
    from store.evaluation import EvalConfig

    (checkout / "words.yaml").write_text(block("yaml wording"))
    run = small_run("# in configs/experiments/simulated.yaml\nwording: words.yaml\n", 6, checkout)
    config = read_settings(run.folder.stage_config("evaluate"), EvalConfig)
    [decisions, *_] = [m for m in config.measurements if m.measure == "decisions"]
    _, framing = config.framings_of(decisions)[0]
    prompt = framing.messages([1.0] * 5, [2.0] * 5)[1]["content"]
    assert prompt.startswith("Which one is better? Say A or B.\n\nYou are ")
    assert "?\nA:\n" in prompt and ": 1.0 " in prompt
    assert run.record.wording.startswith("words.yaml (")


def test_the_table_of_wordings_has_them_all():
    from task.prompts import PROMPTS

    rows = re.findall(r"^\| (\w+) \| `(\w+)` \|", DOCS["adding_things.md"], re.MULTILINE)
    assert rows == [(measure, name) for measure, names in PROMPTS.items() for name in names]


def test_the_engine_of_the_example_answers(checkout: Path):
    from eval.runner import evaluate
    from store.evaluation import EvalConfig
    from store.manifests import ReportFacts, read_manifest
    from store.stages import read_origin
    from store.trials import read_decisions

    defined: dict[str, Any] = {}
    exec(block("python engine"), defined)
    group = {"name": "instilled", "file": "task/data/instilled.jsonl", "only": None}
    asked = [{"arm": "base", "measure": m, "per_context": 1, "contexts": [group]} for m in ("decisions", "reports")]
    config = EvalConfig(
        seed=0,
        output="trials",
        engine={"name": "transformers"},
        model={"name": "models/organism"},
        arms={"base": None},
        measurements=asked,
    )
    decisions, reports = evaluate(defined["CoinEngine"](config), config, quiet=True)
    contexts = {c.name: c for _, c in config.measurements[0].load()}
    assert (read_decisions(decisions, contexts).letter_mass == pytest.approx(1)) and len(contexts) == 100
    assert read_manifest(reports, ReportFacts).facts.readable == 100
    assert read_origin(reports).depends_on["engine"] == "coin"
