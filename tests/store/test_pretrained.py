"""Code that comes with a model is never run and never asked about, wherever models are loaded."""

from __future__ import annotations

import ast
import shutil
from contextlib import nullcontext
from pathlib import Path

import pytest
import torch
from transformers import LlamaConfig

from eval.engines.vllm_settings import model_arguments
from store.evaluation import ModelSettings
from store.files import read_json, write_json
from store.model_file import read_model_file
from store.models import check_adapter
from store.pretrained import check_attention, device_at_hand, load_causal_model, load_config, load_tokenizer
from support import ROOT, make_adapter
from task.errors import InputError

LOADERS = ("from_pretrained", "from_config")
PLAIN = ("LoraConfig", "PeftModel")
"""Classes whose `from_pretrained` reads settings, or takes a model that is loaded, and has no code to run."""

OWN_CODE = """
import pathlib
pathlib.Path(__file__).with_name("ran").touch()
pathlib.Path({ran!r}).touch()
from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast
class Own(LlamaConfig):
    model_type = "own"
class OwnModel(LlamaForCausalLM):
    config_class = Own
class OwnTokenizer(PreTrainedTokenizerFast):
    pass
"""


@pytest.fixture
def own_code(tiny_model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A model folder that names code of its own for everything; a `y` is ready on standard input."""
    folder = shutil.copytree(tiny_model, tmp_path / "own")
    (folder / "own.py").write_text(OWN_CODE.format(ran=str(tmp_path / "ran")))
    classes = {"AutoConfig": "own.Own", "AutoModelForCausalLM": "own.OwnModel"}
    write_json(folder / "config.json", {**read_json(folder / "config.json"), "model_type": "own", "auto_map": classes})
    settings, maps = folder / "tokenizer_config.json", {"AutoTokenizer": [None, "own.OwnTokenizer"]}
    own = {"tokenizer_class": "OwnTokenizer", "auto_map": maps}
    write_json(settings, {**read_json(settings), **own})
    monkeypatch.setattr("builtins.input", lambda *_: "y")
    return folder


def test_a_model_with_code_of_its_own_is_one_line_and_the_code_is_not_run(
    own_code: Path, tiny_model: Path, tmp_path: Path
):
    adapter = make_adapter(tiny_model, tmp_path / "adapter", seed=0)
    for load in (load_config, load_tokenizer, load_causal_model, lambda f: check_adapter(adapter, f, str(tiny_model))):
        with pytest.raises(InputError, match="never run here") as caught:
            load(own_code)
        assert "\n" not in str(caught.value) and str(own_code) in str(caught.value)
    assert not list(tmp_path.rglob("ran"))


def test_a_known_model_that_also_names_code_is_loaded_without_it(tiny_model: Path, tmp_path: Path, own_code: Path):
    known = read_json(own_code / "config.json") | {"model_type": "llama"}
    write_json(own_code / "config.json", known)
    shutil.copy(tiny_model / "tokenizer_config.json", own_code)
    assert type(load_config(own_code)).__name__ == "LlamaConfig"
    assert type(load_causal_model(own_code)).__name__ == "LlamaForCausalLM"
    assert load_tokenizer(own_code)("A").input_ids == load_tokenizer(tiny_model)("A").input_ids
    assert not list(tmp_path.rglob("ran"))


@pytest.mark.parametrize("content", ["", "[]", "{", '{"model_type": "llama", "hidden_size": "many"}', '{"a": 1}'])
def test_a_configuration_that_says_nothing_is_one_line(tiny_model: Path, tmp_path: Path, content: str):
    folder = shutil.copytree(tiny_model, tmp_path / "model")
    (folder / "config.json").write_text(content)
    with pytest.raises(InputError, match="transformers cannot load it") as caught:
        load_config(folder)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(("works", "device"), [(True, "cuda"), (False, "cpu")])
def test_a_gpu_is_used_where_its_driver_works(monkeypatch: pytest.MonkeyPatch, works: bool, device: str):
    monkeypatch.setattr(torch._C, "_accelerator_getAccelerator", lambda: torch.device("cuda"))
    monkeypatch.setattr(torch.accelerator, "is_available", lambda: works)
    assert device_at_hand() == torch.device(device)


@pytest.mark.parametrize(
    ("heads", "key_heads", "attention", "device", "refused"),
    [
        (4, 1, "sdpa", "cuda", True),
        (4, 1, "eager", "cuda", False),
        (4, 1, "sdpa", "cpu", False),
        (4, 2, "sdpa", "cuda", False),
        (1, 1, "sdpa", "cuda", False),
    ],
)
def test_attention_that_is_wrong_on_a_gpu_is_refused(
    monkeypatch: pytest.MonkeyPatch, heads: int, key_heads: int, attention: str, device: str, refused: bool
):
    monkeypatch.setattr("store.pretrained.device_at_hand", lambda: torch.device(device))
    config = LlamaConfig(num_attention_heads=heads, num_key_value_heads=key_heads, attn_implementation=attention)
    with pytest.raises(InputError, match="attn_implementation: eager") if refused else nullcontext():
        check_attention("some/model", config)


def test_no_model_file_asks_for_attention_that_is_refused():
    for stem, known in read_json(ROOT / "configs" / "models" / "architectures.json")["models"].items():
        config = known["config"].get("text_config", known["config"])
        if config.get("num_key_value_heads") == 1:
            assert read_model_file(ROOT / "configs" / "models" / f"{stem}.yaml").attn_implementation == "eager", stem


def loads(path: Path) -> list[ast.Call]:
    """Calls in a file of a class's loader, but for classes that have no code to run."""
    calls = [node for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))) if isinstance(node, ast.Call)]
    found = [call for call in calls if isinstance(call.func, ast.Attribute) and call.func.attr in LOADERS]
    return [call for call in found if not (isinstance(call.func.value, ast.Name) and call.func.value.id in PLAIN)]  # type: ignore[attr-defined]


def test_every_loader_is_told_to_run_no_code():
    rooms = ("task", "store", "train", "eval", "inside", "analysis", "experiment", "scripts", "tests/helpers")
    files = [path for room in rooms for path in (ROOT / room).rglob("*.py")]
    found = {path.relative_to(ROOT): loads(path) for path in files}
    assert len(found[Path("store/pretrained.py")]) == 4, "the test finds them"
    for path, calls in found.items():
        for call in calls:
            told = {word.arg: word.value for word in call.keywords}.get("trust_remote_code")
            assert isinstance(told, ast.Constant) and told.value is False, f"{path}:{call.lineno}"


def test_vllm_is_told_too():
    assert model_arguments(ModelSettings(name="any"))["trust_remote_code"] is False
