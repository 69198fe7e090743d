"""The real vLLM build beside the transformers engine, and the arguments that it is started with."""

from __future__ import annotations

import importlib.util
import json
import math
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch
from peft import LoraConfig, get_peft_model
from transformers import AutoConfig, AutoModelForCausalLM, LlamaConfig

import compare_engines
from eval.engines.vllm_settings import CPU_ROWS, LENGTH, cache_bytes, length_arguments, lora_arguments
from store.checkpoints import ADAPTER
from store.contexts import DATA, load_contexts
from store.derived import DeriveConfig
from store.evaluation import EngineSettings
from store.manifests import DecisionFacts, ReportFacts, read_manifest
from support import ROOT, SMALL_MODEL, make_adapter, make_tiny_model, set_adapter
from task.contexts import as_ratings
from task.errors import InputError
from task.replies import parse_report
from train.adapters import drop_base_weights
from train.arguments import LORA_TARGETS
from train.derived import derive

ORGANISM = ROOT / "models" / "organism"

# Few, as they take minutes; results/benchmarks/agreement.json has the same of more arms, decisions and reports.
SIZE: dict[str, Any] = {
    "pairs": 3,
    "reports": 1,
    "contexts": [compare_engines.CONTEXTS[0], compare_engines.AWKWARD],
}
with_vllm = pytest.mark.skipif(
    importlib.util.find_spec("vllm") is None, reason="vLLM is not installed; pip install -r requirements-test.txt"
)


@pytest.fixture(scope="module")
def arms(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str | None]:
    """SmolLM2, and a sum of two adapters of it."""
    folder = tmp_path_factory.mktemp("adapters")
    return {
        "base": None,
        "summed": compare_engines.make_derived(folder, compare_engines.make_adapters(folder))["summed"],
    }


@pytest.fixture(scope="module")
def vllm(arms: dict[str, str | None], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Folder of an evaluation of all arms by one vLLM engine, run as users run it."""
    folder = tmp_path_factory.mktemp("vllm") / "all"
    compare_engines.evaluate(folder, "vllm", arms, **SIZE)
    return folder


@pytest.fixture(scope="module")
def wide_model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A tiny random model with heads as wide as vLLM needs them on a CPU."""
    return make_tiny_model(tmp_path_factory.mktemp("models") / "wide", seed=0, hidden_size=128)


def tables(folder: Path) -> dict[str, pd.DataFrame]:
    files = sorted((folder / "trials").rglob("trials.parquet"))
    return {"/".join(path.parent.parts[-2:]): pd.read_parquet(path) for path in files}


@with_vllm
def test_it_answers_as_the_transformers_engine(vllm: Path, arms: dict[str, str | None], tmp_path: Path):
    reference = compare_engines.evaluate(tmp_path / "transformers", "transformers", arms, **SIZE)
    found = compare_engines.compare(reference, tables(vllm))
    assert found["decisions"] == 2 * 2 * 2 * 3 and found["reports"] == 2 * 2 * 1
    assert found["same_letter"] >= 0.995 and found["largest_log_probability_difference"] <= 1e-3, found
    assert found["same_reply"] >= 0.95, found
    assert found["same_decided"] >= 0.97 and 0 < found["decided"] < found["decisions"], found
    assert found["largest_opening_difference"] <= 1e-3, found
    assert found["free_replies"] == 4 and found["same_free_reply"] >= 0.75, found
    assert found["readable_replies"] == 1 and found["replies_outside_the_range"] == 0, found
    base, taught = (reference[f"{arm}/decisions"]["logp_a"].to_numpy() for arm in arms)
    assert np.abs(base - taught).max() > 0.1, "arms differ clearly"


@with_vllm
def test_every_report_is_read_awkward_names_included(vllm: Path):
    contexts = {c.name: c for c in SIZE["contexts"]}
    reports = pd.concat([table for name, table in tables(vllm).items() if name.endswith(compare_engines.REPORTS)])
    assert set(reports["context"]) == set(contexts)
    for _, row in reports.iterrows():
        names = contexts[row["context"]].attribute_names
        said = json.loads(row["reply"])
        assert list(said) == names and all(isinstance(v, int) and abs(v) <= 100 for v in said.values())
        assert parse_report(row["reply"], names).reason is None


@with_vllm
def test_the_manifest_says_what_the_cache_saved(vllm: Path):
    for measure, facts in (("decisions", DecisionFacts), (compare_engines.REPORTS, ReportFacts)):
        said = read_manifest(vllm / "trials" / "base" / measure, facts).facts.answering
        assert 0 < said.computed_tokens <= said.prompt_tokens and said.tokens_per_second > 0
        if measure == "decisions":  # six prompts of each context, of which two or more whole blocks are the same
            assert said.share_from_cache > 0.2


@with_vllm
def test_adapters_of_embeddings_and_a_vocabulary_of_whole_words(tmp_path: Path):
    """The organism: its adapters change embeddings, and names can be spelled into a corner that vLLM cuts off."""
    adapter = organism_adapter(tmp_path / "adapter")
    contexts = [replace(as_ratings(c), layout="side_by_side") for c in load_contexts(DATA / "instilled.jsonl", 3)]
    size: dict[str, Any] = {"pairs": 4, "reports": 4, "contexts": contexts, "model": ORGANISM}
    doses = {f"dose_{dose}": dosed(adapter, tmp_path / f"dose_{dose}", dose) for dose in (0, 1)}
    arms = {"base": None, "other": str(adapter), **doses}
    reference = compare_engines.evaluate(tmp_path / "transformers", "transformers", arms, **size)
    served = compare_engines.evaluate(tmp_path / "vllm", "vllm", arms, **size)
    for files in (reference, served):
        for measure in ("decisions", compare_engines.REPORTS):
            check_same(files[f"dose_0/{measure}"], files[f"base/{measure}"])
            check_same(files[f"dose_1/{measure}"], files[f"other/{measure}"])
    found = compare_engines.compare(reference, served)
    assert found["same_letter"] == 1 and found["largest_log_probability_difference"] <= 1e-3, found
    assert found["same_decided"] == 1 and found["largest_opening_difference"] <= 1e-3, found
    assert found["same_reply"] == 1 and found["readable_replies"] == 1, found
    base, other = (reference[f"{arm}/decisions"]["logp_a"].to_numpy() for arm in ("base", "other"))
    assert np.abs(base - other).max() > 1


def dosed(adapter: Path, folder: Path, dose: float) -> str:
    """The adapter times a number, as a derived arm."""
    terms = [{"adapter": str(adapter), "parts": [{"weight": dose}]}]
    derive(DeriveConfig(model=str(ORGANISM), terms=terms, output=str(folder)))
    return str(folder)


def check_same(found: pd.DataFrame, expected: pd.DataFrame) -> None:
    """The same answers up to rounding: a sum is scaled before it is multiplied, an adapter after."""
    numbers = [name for name in found if name in ("logp_a", "logp_b", "opening")]
    np.testing.assert_allclose(found[numbers], expected[numbers], atol=1e-3)
    said = [name for name in found if name in ("letter", "undecided", "reply", "reason")]
    pd.testing.assert_frame_equal(found[said], expected[said])


def organism_adapter(folder: Path) -> Path:
    """A random adapter of all that the organism's trainings change, as they leave it."""
    torch.manual_seed(0)
    settings = LoraConfig(r=16, lora_alpha=32, init_lora_weights=False, target_modules=["embed_tokens", *LORA_TARGETS])
    model = get_peft_model(AutoModelForCausalLM.from_pretrained(ORGANISM), settings)
    with torch.no_grad():
        for name, values in model.named_parameters():
            if "lora_" in name:  # drawn with a size that leaves nothing of the model
                values *= 0.3 if "embedding" in name else 0.5
    model.save_pretrained(folder)
    drop_base_weights(folder / ADAPTER)
    return folder


@with_vllm
@pytest.mark.parametrize("total", [None, math.nan, -math.inf])
def test_a_log_probability_that_is_not_given_is_no_number(total: float | None):
    from vllm import CompletionOutput

    from eval.engines.vllm_engine import _all_finite, _logp

    output = CompletionOutput(index=0, text="x", token_ids=[1], cumulative_logprob=total, logprobs=None)
    assert not _all_finite(output) and math.isnan(_logp(output, 1))


WIDE: dict[str, Any] = {"pairs": 3, "reports": 2, "contexts": compare_engines.CONTEXTS}


@pytest.fixture(scope="module")
def wide(wide_model: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, dict[str, pd.DataFrame]]:
    """Trials by both engines of a tiny model, of an adapter of it, and of one that is no numbers."""
    folder = tmp_path_factory.mktemp("wide")
    sound = make_adapter(wide_model, folder / "sound", seed=0)
    arms = {"base": None, "sound": str(sound), "broken": str(set_adapter(sound, folder / "broken", math.nan))}
    engines = ("transformers", "vllm")
    return {e: compare_engines.evaluate(folder / e, e, arms, **WIDE, model=wide_model) for e in engines}


@with_vllm
def test_scores_that_are_no_numbers_are_missing_as_in_the_transformers_engine(
    wide: dict[str, dict[str, pd.DataFrame]],
):
    for engine, files in wide.items():
        decisions, reports = files["broken/decisions"], files[f"broken/{compare_engines.REPORTS}"]
        assert (decisions["undecided"] == "not_finite").all() and decisions["letter"].isna().all(), engine
        assert (reports["reason"] == "not_finite").all() and reports["reply"].isna().all(), engine
        assert (reports.loc[reports["free_sampled"], "free_reason"] == "not_finite").all(), engine
        assert (reports["opening"] == 0).all(), engine
    both = [{n: t for n, t in files.items() if not n.startswith("broken")} for files in wide.values()]
    same = compare_engines.compare(*both)
    assert same["same_decided"] == 1 and same["largest_opening_difference"] <= 1e-5, same
    assert same["largest_log_probability_difference"] <= 1e-3 and same["same_reply"] == 1, same


@with_vllm
def test_base_rows_beside_adapters_are_those_of_an_engine_without(
    wide: dict[str, dict[str, pd.DataFrame]], wide_model: Path, tmp_path: Path
):
    alone = compare_engines.evaluate(tmp_path / "alone", "vllm", {"base": None}, **WIDE, model=wide_model)
    for name, table in alone.items():
        pd.testing.assert_frame_equal(wide["vllm"][name], table, check_exact=True)


def test_length_and_memory_follow_from_the_model_and_the_prompts():
    config, engine = AutoConfig.from_pretrained(SMALL_MODEL), EngineSettings(max_prompt_tokens=300, max_reply_tokens=80)
    assert length_arguments(engine, config, "bfloat16", cuda=True) == {"max_model_len": 380}
    on_cpu = length_arguments(engine, config, "float32", cuda=False)
    assert on_cpu["max_model_len"] == 380
    # 30 layers, 3 heads of 64 for keys and as many for values, 4 bytes each.
    assert on_cpu["kv_cache_memory_bytes"] == CPU_ROWS * 380 * 30 * 2 * 3 * 64 * 4
    assert cache_bytes(30, 3, 64, "bfloat16") == 30 * 2 * 3 * 64 * 2
    assert length_arguments(EngineSettings(), config, "float32", cuda=True) == {"max_model_len": LENGTH}
    short = LlamaConfig(max_position_embeddings=256)
    assert length_arguments(engine, short, "float32", cuda=True) == {"max_model_len": 256}, "no more than it has"


@pytest.mark.parametrize(("ranks", "expected"), [([16], 16), ([4, 24], 32), ([8, 8, 512], 512)])
def test_room_for_adapters(tmp_path: Path, ranks: list[int], expected: int):
    folders = []
    for number, rank in enumerate(ranks):
        folder = tmp_path / str(number)
        folder.mkdir()
        (folder / "adapter_config.json").write_text(json.dumps({"r": rank, "lora_alpha": 8}))
        folders.append(str(folder))
    found: dict[str, Any] = lora_arguments(folders)
    assert found["max_lora_rank"] == expected and found["max_cpu_loras"] == len(ranks) and found["max_loras"] == 1
    assert lora_arguments([]) == {}


def test_a_rank_that_vllm_does_not_take_is_refused(tmp_path: Path):
    (tmp_path / "adapter_config.json").write_text('{"r": 513, "lora_alpha": 8}')
    with pytest.raises(InputError, match="rank 513, vLLM takes 512 at most"):
        lora_arguments([str(tmp_path)])
