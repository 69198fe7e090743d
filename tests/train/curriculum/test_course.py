"""Options of the commands that make models: what no training can be done with is one line, before a model is loaded."""

import argparse
from typing import Any

import pytest

from task.errors import InputError
from train.curriculum import warm_up
from train.curriculum.organism import make


@pytest.mark.parametrize(
    ("command", "changed"),
    [
        (warm_up, {}),
        (make, {}),
        *((warm_up, {"seed": seed}) for seed in (-1, 2**32)),
        *((warm_up, {"learning_rate": rate}) for rate in (0.0, -1e-4, float("nan"), float("inf"), 1e30)),
        *((warm_up, {"contexts": count}) for count in (-1, 0, 1, 1000)),
        *((warm_up, {name: count}) for name in ("times", "wide") for count in (0, 65)),
        *((make, {"candour": candour}) for candour in (1.5, float("nan"))),
        *((make, {"batch": batch}) for batch in (0, -3, 10**9)),
        (make, {"seed": -1}),
    ],
)
def test_options_that_nothing_can_be_learnt_with(command: Any, changed: dict[str, float]):
    options = {"seed": 0, "learning_rate": 1e-4, "contexts": 16, "candour": 0.5, "batch": 64}
    options |= {"times": 1, "wide": 1, **changed}
    if not changed:
        command.check(argparse.Namespace(**options))
        return
    [name] = changed
    with pytest.raises(InputError, match=rf"^--{name} .*; give .* to .*$"):
        command.check(argparse.Namespace(**options))
