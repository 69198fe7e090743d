"""What a model is called elsewhere, and which adapters it takes."""

import json
from pathlib import Path
from typing import Any

import pytest

from store.checkpoints import ADAPTER
from store.manifests import ModelFacts
from store.models import check_adapter, published_name, template_hash
from store.stages import Stage
from task.errors import InputError


def test_a_model_is_never_named_by_its_path(tmp_path: Path):
    assert published_name("Qwen/Qwen3-4B", tmp_path) == "Qwen/Qwen3-4B"
    for name, known in (("fetched", "HuggingFaceTB/SmolLM2-135M-Instruct"), ("made", None)):
        Stage(tmp_path / name, {}).finish(ModelFacts(model=known))
        assert published_name(str(tmp_path / name), tmp_path / name) == (known or "made")
    (tmp_path / "plain").mkdir()
    assert published_name(str(tmp_path / "plain"), tmp_path / "plain") == "plain"


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ({"peft_type": "IA3"}, "peft_type IA3"),
        ({"peft_type": "PROMPT_TUNING"}, "peft_type PROMPT_TUNING"),
        ({"use_dora": True}, "use_dora true"),
        ({"rank_pattern": {"q_proj": 4}}, 'rank_pattern {"q_proj": 4}'),
        ({"alpha_pattern": {"q_proj": 4}}, 'alpha_pattern {"q_proj": 4}'),
        ({"modules_to_save": ["lm_head"]}, 'modules_to_save ["lm_head"]'),
        ({"bias": "all"}, "bias all"),
        ({"init_lora_weights": "pissa_niter_4"}, "init_lora_weights pissa_niter_4, which changes the base model"),
    ],
)
def test_another_kind_of_adapter_than_plain_lora_is_one_clear_line(tmp_path: Path, change: dict[str, Any], says: str):
    plain = {"peft_type": "LORA", "base_model_name_or_path": "some/model", "bias": "none", "init_lora_weights": True}
    plain |= {"use_dora": False, "rank_pattern": {}, "alpha_pattern": {}, "modules_to_save": None, "use_rslora": True}
    (tmp_path / ADAPTER).touch()
    (tmp_path / "adapter_config.json").write_text(json.dumps(plain))
    check_adapter(tmp_path, tmp_path, "some/model")
    (tmp_path / "adapter_config.json").write_text(json.dumps({**plain, **change}))
    with pytest.raises(InputError) as caught:
        check_adapter(tmp_path, tmp_path, "some/model")
    assert (
        str(caught.value) == f"{tmp_path}: {says}; only plain LoRA is trained and measured here: train one without it"
    )


def test_another_chat_template_is_another_hash(tmp_path: Path):
    config = tmp_path / "tokenizer_config.json"
    assert template_hash(tmp_path) is None
    config.write_text('{"pad_token": "x"}')
    assert template_hash(tmp_path) is None
    config.write_text('{"chat_template": "one"}')
    one = template_hash(tmp_path)
    config.write_text('{"pad_token": "x", "chat_template": "one"}')
    assert one == template_hash(tmp_path) and one is not None
    (tmp_path / "chat_template.jinja").write_text("two")
    assert template_hash(tmp_path) not in (None, one), "a file of its own prevails"
