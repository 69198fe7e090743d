"""Engines answer trials: `transformers` runs a model, `simulated` answers from planted weights."""

from __future__ import annotations

from eval.config import EvalConfig
from eval.engines.base import Engine


def make_engine(config: EvalConfig) -> Engine:
    """The engine that a configuration names, with all its arms."""
    # Imported here, so that a simulation starts without loading torch.
    if config.engine.name == "simulated":
        from eval.engines.simulated import SimulatedEngine

        return SimulatedEngine(config)
    from eval.engines.transformers_engine import TransformersEngine

    return TransformersEngine(config)
