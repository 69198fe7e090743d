"""Arms that are made beside trainings: planned, measured, compared, chained, and refused where they cannot be."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import yaml

from experiment.launcher import plan_runs
from experiment.plan import Run
from experiment.slurm.chain import chain
from experiment.slurm.site import Site
from store.derived import DeriveConfig
from store.evaluation import EvalConfig
from store.inside import AttributeConfig, PatchConfig
from store.settings import read_settings
from support import ROOT
from task.errors import InputError
from train.arguments import check_training

MODEL = {
    "name": "models/organism",
    "sft": {"lora_r": 4, "lora_target_modules": ["embed_tokens", "q_proj"], "effective_batch_size": 8},
}
TAUGHT = {"teach": "decisions", "contexts": "instilled", "train_per_context": 10, "validation_per_context": 0}
FRESH = {**TAUGHT, "contexts": "spare", "on_top_of": "instilled", "apart": True, "sft": {"lora_r": 2, "max_steps": 4}}
REPORTS = {**TAUGHT, "teach": "reports", "start": "instilled"}


def asked(arm: str, contexts: Any = "instilled", measure: str = "decisions", **more: Any) -> dict[str, Any]:
    return {"arm": arm, "measure": measure, "contexts": contexts, "per_context": 2, **more}


def compared(name: str, reports: str, weights: str, contexts: str = "instilled") -> dict[str, Any]:
    return {"name": name, "reports": reports, "weights": weights, "contexts": contexts}


EXPERIMENT: dict[str, Any] = {
    "name": "made",
    "seeds": [0],
    "contexts": {
        "instilled": {"file": "task/data/instilled.jsonl", "count": 4},
        "native": {"file": "task/data/native.jsonl", "count": 2},
        "spare": {"file": "task/data/spare.jsonl", "count": 3},
    },
    "target_contexts": ["instilled", "spare"],
    "trainings": {
        "instilled": {**TAUGHT, "keep_every": 4, "sft": {"num_train_epochs": 2}},
        "introspection": {**REPORTS, "folds": 2, "keep_every": [2, 4]},
        "shallow": {**TAUGHT, "layers": "first 2"},
        "fresh": FRESH,
        "fresh_early": {**FRESH, "on_top_of": "instilled@4"},
        "wide": {**TAUGHT, "contexts": "spare", "on_top_of": "shallow"},
    },
    "cuts": {"instilled": "every", "introspection": [2]},
    "measurements": [
        asked("instilled"),
        asked("instilled", measure="reports"),
        asked("instilled", kept=True),
        asked("instilled", measure="reports", kept=True),
        asked("instilled", cuts=True),
        asked("instilled_below_2", measure="reports"),
        asked("introspection", "held_out", kept=True),
        asked("introspection", "held_out", cuts=True),
        asked("fresh", ["spare", "native"]),
        asked("fresh", "spare", measure="reports"),
    ],
    "inside": {
        "attribution": {
            "arms": ["instilled", "fresh", "instilled@8"],
            "contexts": ["instilled", "native"],
            "prompts": 3,
        },
        "patching": {"arms": ["instilled"], "random": 1},
    },
    "gate": {"arm": "instilled", "contexts": "instilled"},
    "comparisons": [
        compared("whole", "instilled", "instilled"),
        compared("early", "instilled@4", "instilled@8"),
        compared("lower", "instilled_below_2", "instilled_from_3"),
        compared("fresh", "fresh", "fresh", "spare"),
    ],
}


def planned(folder: Path, model: dict[str, Any] | None = None, **change: Any) -> Run:
    (folder / "model.yaml").write_text(yaml.safe_dump(model or MODEL))
    values = {**EXPERIMENT, "model": str(folder / "model.yaml"), **change}
    (folder / "made.yaml").write_text(yaml.safe_dump(values, sort_keys=False))
    return plan_runs(folder / "made.yaml", folder / "runs")[0]


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Run:
    return planned(tmp_path_factory.mktemp("made"))


def evaluation(run: Run) -> EvalConfig:
    return next(EvalConfig.model_validate(s.config) for s in run.stages if s.name == "evaluate")


def test_a_number_keeps_every_so_many_steps_before_the_last(run: Run):
    [sft] = [stage for stage in run.stages if stage.name == "instilled.sft"]  # 40 rows, 8 a step, twice: 10 steps
    assert sft.config["keep_steps"] == [4, 8] == run.kept_steps("instilled") and "2 earlier steps kept" in sft.size
    kept = evaluation(run).arms["instilled@4"]
    assert kept == str(run.folder.path / "adapters" / "instilled" / "kept" / "4")
    record = run.record.arms["instilled@4"]
    assert (record.step, record.training, record.teach, record.contexts) == (4, "instilled", "decisions", "instilled")


def test_every_fold_keeps_the_same_steps_and_is_asked_about_what_it_held_out(run: Run):
    found = {m.arm: m.contexts[0].only for m in evaluation(run).measurements if m.arm.startswith("introspection")}
    kept = {f"introspection_fold_{fold}@{step}" for fold in (1, 2) for step in (2, 4)}
    cut = {f"introspection_{side}_2_fold_{fold}" for side in ("below", "from") for fold in (1, 2)}
    assert {*found} == kept | cut
    for fold, arm in enumerate(run.arms["introspection"], start=1):
        assert found[f"introspection_fold_{fold}@2"] == found[f"introspection_below_2_fold_{fold}"] == arm.held_out
    record = run.record.arms["introspection_below_2_fold_1"]
    assert (record.cut_of, record.cut, record.kept_side) == ("introspection_fold_1", 2, "below")


def test_an_adapter_is_cut_at_every_layer_and_its_embedding_is_below_all(run: Run):
    derive = {s.name: DeriveConfig.model_validate(s.config) for s in run.stages if s.kind == "derive"}
    cut = {name for name in derive if name.startswith("instilled_")}
    assert cut == {f"instilled_{side}_{layer}.derive" for side in ("below", "from") for layer in (1, 2, 3)}
    count = run.record.arms["instilled_from_1"].layer_count
    assert count == 4
    for layer in (1, 2, 3):
        below, above = (derive[f"instilled_{side}_{layer}.derive"].terms[0] for side in ("below", "from"))
        matrices = [f"model.layers.{n}.self_attn.q_proj" for n in range(4)]
        weights = [(below.weight(matrix, 4), above.weight(matrix, 4)) for matrix in matrices]
        assert weights == [(1, 0)] * layer + [(0, 1)] * (4 - layer)
        assert (below.weight("model.embed_tokens", 4), above.weight("model.embed_tokens", 4)) == (1, 0)


def test_an_adapter_in_some_layers_is_cut_within_them_and_has_no_embedding(tmp_path: Path):
    measured = [*EXPERIMENT["measurements"], asked("shallow", cuts=True)]
    run = planned(tmp_path, cuts={**EXPERIMENT["cuts"], "shallow": "every"}, measurements=measured)
    found = [arm.name for arm in run.by_name.values() if arm.half and arm.half.arm == "shallow"]
    assert found == ["shallow_below_1", "shallow_from_1"]
    [lower] = run.arms["shallow_below_1"]
    assert [part.layers for part in lower.terms["shallow"]] == ["first 1"]
    sft = next(stage.config for stage in run.stages if stage.name == "shallow.sft")
    assert sft["layers"] == "first 2" and run.record.arms["shallow"].layers == "first 2"
    check_training(sft)


def test_a_small_adapter_is_trained_alone_on_one_context_and_served_as_a_sum(run: Run):
    names = [stage.name for stage in run.stages]
    spare = [context.name for context in run.groups["spare"]]
    by_name = {stage.name: stage for stage in run.stages}
    for number, context in enumerate(spare, start=1):
        examples, sft = (by_name[f"fresh_{number}_alone.{end}"] for end in ("examples", "sft"))
        derive = by_name[f"fresh_{number}.derive"]
        assert examples.config["only"] == [context] and sft.output.name == f"fresh_{number}_alone"
        assert sft.config["frozen_adapter"] == str(run.folder.adapter("instilled")) and "adapter" not in sft.config
        assert sft.needs == ("instilled.sft",) and derive.needs == (f"fresh_{number}_alone.sft", "instilled.sft")
        folders = [Path(term["adapter"]).name for term in derive.config["terms"]]
        assert folders == [f"fresh_{number}_alone", "instilled"] and derive.output == run.folder.adapter(
            f"fresh_{number}"
        )
        record, alone = run.record.arms[f"fresh_{number}"], run.record.arms[f"fresh_{number}_alone"]
        assert (record.training, record.on_top_of, record.context) == ("fresh", "instilled", context)
        assert set(record.derived or {}) == {f"fresh_{number}_alone", "instilled"} and alone.derived is None
        assert names.index("instilled.sft") < names.index(sft.name) < names.index(derive.name)
    check_training(by_name["fresh_1_alone.sft"].config)
    assert by_name["fresh_1_alone.sft"].size == "10 examples x 4 steps on top of instilled"
    early = by_name["fresh_early_1_alone.sft"]
    assert early.config["frozen_adapter"].endswith("instilled/kept/4") and early.needs == ("instilled.sft",)
    assert by_name["wide_alone.sft"].config["frozen_adapter"] == str(run.folder.adapter("shallow"))


def test_an_arm_of_one_context_is_asked_about_it_and_speaks_for_it(run: Run):
    spare = [context.name for context in run.groups["spare"]]
    found = {m.arm: [g.only for g in m.contexts] for m in evaluation(run).measurements if m.arm.startswith("fresh")}
    assert found["fresh_2"] == [[spare[1]]], "reports, the measurement that stands last"
    [decisions] = [m for m in evaluation(run).measurements if (m.arm, m.measure) == ("fresh_2", "decisions")]
    assert [g.only for g in decisions.contexts] == [[spare[1]], None], "but all native ones"
    [comparison] = [c for c in run.record.comparisons if c.name == "fresh"]
    assert [(s.arm, s.contexts) for s in comparison.reports] == [(f"fresh_{n + 1}", [c]) for n, c in enumerate(spare)]


def test_looking_inside_is_told_the_part_above_the_frozen_adapter(run: Run):
    by_name = {stage.name: stage for stage in run.stages}
    assert [stage.name for stage in run.stages][-5:] == ["evaluate", "attribute", "patch", "analyse", "track"]
    attribute = AttributeConfig.model_validate(by_name["attribute"].config)
    assert [*attribute.arms] == ["instilled", "fresh_1", "fresh_2", "fresh_3", "instilled@8"]
    fresh, kept = attribute.arms["fresh_1"], attribute.arms["instilled@8"]
    assert (fresh.adapter, fresh.frozen) == tuple(str(run.folder.adapter(a)) for a in ("fresh_1_alone", "instilled"))
    assert [(g.name, g.only) for g in fresh.contexts] == [("spare", [run.groups["spare"][0].name])]
    assert (kept.adapter, kept.frozen) == (str(run.folder.adapter("instilled@8")), None)
    assert [(g.name, g.only) for g in kept.contexts] == [("instilled", None), ("native", None)]
    assert by_name["attribute"].needs == ("instilled.sft", *(f"fresh_{n}_alone.sft" for n in (1, 2, 3)))
    assert [*PatchConfig.model_validate(by_name["patch"].config).arms] == ["instilled"]
    assert by_name["patch"].needs == ("instilled.sft", "attribute")


def test_tokens_of_looking_inside_are_prompts_times_passes(run: Run):
    def tokens(arms: list[str], **change: Any) -> int:
        wanted = {"arms": arms, "contexts": "native", "prompts": 3, "steps": 7, **change}
        inside = type(run.experiment.inside).model_validate({"attribution": wanted})
        experiment = run.experiment.model_copy(update={"inside": inside})
        other = Run(experiment, run.model, run.groups, run.seed, run.folder, run.tokens)
        return next(stage.tokens for stage in other.stages if stage.name == "attribute")

    plain = tokens(["instilled"])
    assert plain > 0 and tokens(["instilled", "shallow"]) == 2 * plain
    assert tokens(["instilled"], steps=15) == 2 * plain and tokens(["instilled"], prompts=6) == 2 * plain
    assert tokens(["instilled"], random=2) == 3 * plain


def test_jobs_wait_for_adapters_and_sums_are_made_together(run: Run):
    site = read_settings(ROOT / "configs" / "slurm" / "site.yaml", Site)
    jobs = {job.name: job for job in chain(run, site, Path("configs/accelerate/single_gpu.yaml"), ())}
    assert jobs["fresh_1_alone.sft"].after == ("instilled.sft",) and jobs["fresh_1_alone.sft"].kind == "train"
    [cuts] = [job for job in jobs.values() if "instilled_below_1.derive" in job.stages]
    assert len(cuts.stages) == 6 and cuts.after == ("instilled.sft",) and cuts.name in jobs["evaluate"].after
    looks = [jobs[name] for name in ("attribute", "patch")]
    assert [job.kind for job in looks] == ["evaluate"] * 2 and "attribute" in jobs["patch"].after
    assert jobs["analyse"].after == ("evaluate.merge", "attribute", "patch")
    done = [name for job in jobs.values() for name in job.stages]
    assert {*done} == {stage.name for stage in run.stages}


def training(name: str, **change: Any) -> dict[str, Any]:
    """The trainings of the experiment with one that is another."""
    return {"trainings": {**EXPERIMENT["trainings"], name: {**EXPERIMENT["trainings"][name], **change}}}


def measured(*more: dict[str, Any]) -> dict[str, Any]:
    return {"measurements": [*EXPERIMENT["measurements"], *more]}


def looked(**change: Any) -> dict[str, Any]:
    return {"inside": {**EXPERIMENT["inside"], **change}}


def beside(name: str, **values: Any) -> dict[str, Any]:
    return {"trainings": {**EXPERIMENT["trainings"], name: {**TAUGHT, **values}}}


ATTRIBUTION: dict[str, Any] = EXPERIMENT["inside"]["attribution"]


@pytest.mark.parametrize(
    ("change", "says"),
    [
        (training("instilled", keep_every=0), "keep_every"),
        (training("instilled", keep_every=[4, 2]), "steps [4, 2]: name each once, in order"),
        (training("instilled", keep_every=[4, 8, 10]), "the training has 10 steps, and the last one is the arm itself"),
        (training("shallow", keep_every=40), "keep_every 40: the training has 15 steps"),
        (training("shallow", layers="the first"), "layers 'the first': give 'first N'"),
        (training("shallow", layers="first 5"), "trainings.shallow: layers 'first 5': the model has 4 layers"),
        (training("introspection", layers="first 2"), "layers 'first 2' is of a new adapter"),
        (training("fresh", start="instilled"), "on_top_of 'instilled' is of a new adapter, and start 'instilled'"),
        (training("fresh", folds=2), "on_top_of and folds do not go together"),
        (training("fresh", keep_every=[1]), "on_top_of and keep_every do not go together"),
        (training("fresh", labels="shuffled"), "apart: each training has a single context, so that labels shuffled"),
        (training("fresh", on_top_of="nobody"), "trainings: 'nobody' is none of"),
        (training("fresh", on_top_of="instilled@5"), "trainings: 'instilled@5' is none of"),
        (
            training("fresh", on_top_of="instilled@40"),
            "'instilled@40': no such step or layer; there are instilled, ",
        ),
        (training("fresh", on_top_of="introspection"), "'introspection' is 2 arms, one a fold"),
        (training("fresh", on_top_of="wide"), "on_top_of: 'wide' is a sum with another adapter"),
        (training("introspection", start="fresh"), "start: 'fresh' is an arm of each context"),
        (training("instilled", sft={"keep_steps": [2]}), "keep_steps cannot be set here"),
        (beside("fresh_2"), "'context 2 of fresh' and 'fresh_2' have one name"),
        (beside("fresh_1_alone"), "have one name, 'fresh_1_alone'"),
        (beside("instilled_below_2"), "'instilled cut at layer 2' and 'instilled_below_2' have one name"),
        (beside("attribute"), "trainings: 'attribute' means something else"),
        (
            {"cuts": {**EXPERIMENT["cuts"], "introspection": [4]}},
            "cuts.introspection: 4: the adapter can be cut at layers 1 to 3",
        ),
        ({"cuts": {"instilled": [0]}}, "cuts.instilled"),
        ({"cuts": {"nobody": "every"}}, "cuts: 'nobody' is none of"),
        ({"cuts": {**EXPERIMENT["cuts"], "fresh": "every"}}, "cuts.fresh: 'fresh' is an arm of each context"),
        ({"derived": {"x": {"fresh": 1}}}, "derived.x: 'fresh' is an arm of each context"),
        (measured(asked("shallow", kept=True)), "kept, but trainings.shallow keeps no steps; give it keep_every"),
        (measured(asked("shallow", cuts=True)), "cuts, but the adapter is not cut; add cuts: {shallow: every}"),
        (measured(asked("instilled", kept=True, cuts=True)), "kept and cuts are different arms"),
        (measured(asked("instilled@4")), "decisions of 'instilled@4' are asked for twice"),
        (measured(asked("instilled", kept=True)), "decisions of 'instilled' are asked for twice"),
        (measured(asked("instilled@5")), "measurements: 'instilled@5' is none of"),
        (
            measured(asked("instilled_below_9", measure="reports")),
            "'instilled_below_9': no such step or layer; there are",
        ),
        (measured(asked("fresh", "held_out", measure="reports", constrained=True)), "held_out needs an arm with folds"),
        ({"gate": {"arm": "fresh", "contexts": "spare"}}, "gate: arm 'fresh' is an arm of each context"),
        ({"comparisons": [compared("x", "instilled@5", "instilled")]}, "comparisons: 'instilled@5' is none of"),
        ({"comparisons": [compared("x", "shallow", "instilled")]}, "needs reports of shallow (trial)"),
        (
            {"comparisons": [compared("x", "instilled_from_2", "instilled")]},
            "needs reports of instilled_from_2 (trial)",
        ),
        (
            {"comparisons": [compared("x", "fresh", "fresh", "native")]},
            "would count several times; compare it on 'spare'",
        ),
        (looked(attribution={**ATTRIBUTION, "arms": ["off_the_shelf"]}), "'off_the_shelf' has no adapter"),
        (looked(attribution={**ATTRIBUTION, "arms": ["nobody"]}), "inside.attribution: 'nobody' is none of"),
        (looked(attribution={**ATTRIBUTION, "arms": ["wide", "wide"]}), "'wide' stands there twice"),
        (looked(attribution={**ATTRIBUTION, "contexts": "held_out"}), "contexts 'held_out' is none of"),
        (looked(patching={"arms": ["shallow"]}), "inside.patching: 'shallow' has no scores to rank by"),
    ],
)
def test_what_cannot_be_is_one_clear_line(tmp_path: Path, change: dict[str, Any], says: str):
    with pytest.raises(InputError) as caught:
        planned(tmp_path, **change)
    assert says in str(caught.value) and "\n" not in str(caught.value)


def test_steps_that_depend_on_the_gpu_are_listed(tmp_path: Path):
    sft = {key: value for key, value in MODEL["sft"].items() if key != "effective_batch_size"}
    with pytest.raises(InputError, match="the number of steps depends on the GPU; give a list of steps"):
        planned(tmp_path, {**MODEL, "sft": sft})


def test_layers_of_a_model_that_is_not_known_are_not_guessed(tmp_path: Path):
    with pytest.raises(InputError, match="some/model: how many layers it has is not known"):
        planned(tmp_path, {**MODEL, "name": "some/model"})


@pytest.mark.parametrize("name", ["inside", "depth", "inside_qwen3"])
def test_experiments_that_look_inside_are_planned_without_weights(tmp_path: Path, name: str):
    run = plan_runs(ROOT / "configs" / "experiments" / f"{name}.yaml", tmp_path)[0]
    kinds = [stage.kind for stage in run.stages]
    # One of each training: the arms of one differ in their files alone.
    for each, training in run.experiment.trainings.items():
        arm = run.arms[f"{each}_alone" if training.alone else each][0]
        check_training(next(stage.config for stage in run.stages if stage.name == f"{arm.name}.sft"))
    assert kinds[-2:] == ["analyse", "track"] and ("attribute" in kinds) == (run.experiment.inside is not None)
    if name == "inside_qwen3":
        kept = next(m for m in run.experiment.measurements if m.kept)
        assert [arm.name for arm in run.asked(kept)][-1] == "instilled@3000"
        assert len([arm for arm in run.by_name.values() if arm.half]) == 2 * 35
