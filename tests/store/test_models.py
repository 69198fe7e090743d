"""What a model is called elsewhere."""

from pathlib import Path

from store.manifests import ModelFacts
from store.models import published_name
from store.stages import Stage


def test_a_model_is_never_named_by_its_path(tmp_path: Path):
    assert published_name("Qwen/Qwen3-4B", tmp_path) == "Qwen/Qwen3-4B"
    for name, known in (("fetched", "HuggingFaceTB/SmolLM2-135M-Instruct"), ("made", None)):
        Stage(tmp_path / name, {}).finish(ModelFacts(model=known))
        assert published_name(str(tmp_path / name), tmp_path / name) == (known or "made")
    (tmp_path / "plain").mkdir()
    assert published_name(str(tmp_path / "plain"), tmp_path / "plain") == "plain"
