"""Every example of the README and of docs/ works: YAML files, code, and the way that a trial goes."""

from __future__ import annotations

import json
import re
import shutil
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml

from experiment.file import load_experiment
from experiment.launcher import plan_runs
from experiment.slurm.site import Site
from pages import BLOCKS, DOCS, Block, block, resolve, stops
from store.model_file import ModelFile, read_model_file
from store.settings import read_settings
from support import ROOT


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
            names = [stage.name for stage in run.stages if stage.name not in ("attribute", "patch")]
            assert run.record.comparisons and names[-3:] == [
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


def test_a_trial_goes_the_way_that_is_told(checkout: Path):
    from analysis.pages.report import write_report
    from analysis.run import summary
    from analysis.study.results import analyse

    told = [resolve(functions[0]).__code__ for functions in stops("One trial, from YAML to report")]
    called: dict[Any, int] = {}
    sys.setprofile(lambda frame, event, _: called.setdefault(frame.f_code, len(called)) if event == "call" else None)
    try:
        run = small_run("# in configs/experiments/simulated.yaml\nname: short\n", 6, checkout)
        evaluate_run(run)
        results = analyse(run.folder.path)
        write_report(results, summary(results), [], checkout / "report.html")
    finally:
        sys.setprofile(None)
    assert [code for code in sorted(called, key=called.__getitem__) if code in told] == told
