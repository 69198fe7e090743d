"""The check of a GPU: its twin on this CPU, on a machine that lacks packages, and what makes a line fail."""

import json
import os
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from rich.console import Console

from scripts.check_gpu import run as running
from scripts.check_gpu.agreement import NEAR, compare, problems_of
from scripts.check_gpu.attention import wrong_lengths
from scripts.check_gpu.checking import Asked, Check, Clock, Found, Skipped, carry_out
from scripts.check_gpu.lines import CHECKS
from scripts.check_gpu.memory import peak_on_cpu
from scripts.check_gpu.product import flops
from scripts.check_gpu.record import CheckRecord, Line, read_record, write_record
from scripts.check_gpu.serving import Answers, judge, own_problems
from scripts.check_gpu.sizes import CPU
from scripts.check_gpu.table import show
from support import ROOT
from task.errors import InputError

ABSENT = ("trl", "datasets", "wandb", "xgrammar", "arviz_stats", "vllm")

BARE = f"""
import sys
for name in {ABSENT!r}:
    sys.modules[name] = None  # as if it were not installed
lines = ["training", "agreement", "speed", "serving"]
sys.argv = ["check_gpu", "--device", "cpu", "--out", sys.argv[1], "--only", *lines]
import runpy
runpy.run_module("scripts.check_gpu", run_name="__main__")
"""


@pytest.fixture(scope="module")
def twin(tmp_path_factory: pytest.TempPathFactory) -> CheckRecord:
    out = tmp_path_factory.mktemp("check") / "new" / "twin.json"
    running.run("cpu", None, out)
    return read_record(out)


def test_the_twin_passes_on_a_cpu(twin: CheckRecord):
    states = {line.name: line.state for line in twin.lines}
    assert [*states] == [check.name for check in CHECKS]
    left = {name: state for name, state in states.items() if state != "passed"}
    assert left == {"two_processes": "skipped", "serving": "skipped"}, twin.failed
    assert twin.device == "cpu" and twin.memory_gb is None and "torch" in twin.packages


def test_the_twin_measures_what_it_says(twin: CheckRecord):
    figures: dict[str, Any] = {line.name: line.figures for line in twin.lines}
    trained = figures["training"]
    assert trained and all(f["resumed_same_bytes"] and f["last_loss"] < f["first_loss"] for f in trained.values())
    organism = figures["agreement"]["organism float32"]
    assert organism["decisions"] == 2 * 2 * CPU.contexts * CPU.pairs and organism["same_reply"] == 1
    assert 0 < organism["largest_difference"] < 1e-4
    assert figures["agreement"]["organism bfloat16"]["largest_difference"] > 10 * organism["largest_difference"]
    assert len(figures["memory"]) == 3 and all(0.8 < f["ratio"] < 1.05 for f in figures["memory"].values())
    speed = figures["speed"]
    used = 6 * speed["parameters"] * speed["training_tokens_per_second"] / speed["product_flops"]
    assert speed["training_utilisation"] == pytest.approx(used) and used > 0
    used = 2 * speed["parameters"] * speed["evaluation_tokens_per_second"] / speed["product_flops"]
    assert speed["evaluation_utilisation"] == pytest.approx(used) and used > 0
    assert speed["evaluation_prompt_tokens_per_second"] > speed["evaluation_tokens_per_second"]


def test_a_bare_machine_skips_by_name_what_it_lacks(tmp_path: Path):
    command = [sys.executable, "-c", BARE, str(tmp_path / "bare.json")]
    result = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, env={**os.environ, "PYTHONPATH": "."})
    assert result.returncode == 0, result.stderr[-2000:]
    found = {line.name: line for line in read_record(tmp_path / "bare.json").lines}
    for name in ("training", "speed"):
        assert found[name].state == "skipped" and found[name].said == "trl, datasets are not installed"
        assert "python -m scripts.collect_wheels" in found[name].remedy
    assert found["serving"].said == "vllm, xgrammar are not installed"
    assert found["agreement"].state == "passed", found["agreement"]
    assert "same_reply" not in found["agreement"].figures["organism float32"]
    assert "ImportError" not in result.stdout + result.stderr and "ModuleNotFoundError" not in result.stderr


def check_that(function: Any, monkeypatch: pytest.MonkeyPatch, *needs: str) -> Line:
    """The line that a function makes."""
    monkeypatch.setattr(Check, "function", property(lambda self: function))
    check = Check("one", "about it", "nowhere", needs, 10, "mend it")
    return carry_out(check, "cpu", CPU)


def test_a_line_that_breaks_off_is_a_failed_one(monkeypatch: pytest.MonkeyPatch):
    def broken(asked: Asked) -> Found:
        raise RuntimeError("CUDA error:\n an illegal memory access")

    line = check_that(broken, monkeypatch)
    assert line.state == "failed" and line.said == "RuntimeError: CUDA error: an illegal memory access"
    assert line.remedy == "mend it" and "raise RuntimeError" in line.traceback


def test_a_line_says_what_it_found_lacks_or_leaves_out(monkeypatch: pytest.MonkeyPatch):
    line = check_that(lambda asked: Found("fine", {"a": 1}, left_out=["gemma3"]), monkeypatch)
    assert (line.state, line.said, line.figures, line.left_out) == ("passed", "fine", {"a": 1}, ["gemma3"])
    line = check_that(lambda asked: Found("fine", problems=["one", "two"], remedy="do this"), monkeypatch)
    assert (line.state, line.said, line.remedy) == ("failed", "one; two", "do this")
    line = check_that(lambda asked: Found(), monkeypatch, "json", "no_such_package")
    assert (line.state, line.said) == ("skipped", "no_such_package is not installed")

    def skipped(asked: Asked) -> Found:
        raise Skipped("one GPU is visible", "get another")

    line = check_that(skipped, monkeypatch)
    assert (line.state, line.said, line.remedy) == ("skipped", "one GPU is visible", "get another")


def test_long_lines_leave_out_what_there_is_no_time_for(tmp_path: Path):
    from scripts.check_gpu import memory

    found = memory.check(Asked("cpu", CPU, Clock(0)))
    assert found.left_out == ["llama", "qwen3", "gemma3"] and not found.figures


@pytest.mark.parametrize(
    ("ended", "said"),
    [
        (
            subprocess.CompletedProcess([], -11, "", "x\nSegmentation fault\n"),
            "ended with status -11: Segmentation fault",
        ),
        (subprocess.TimeoutExpired("x", 270), "not done after 270 s"),
    ],
    ids=["killed", "hangs"],
)
def test_a_process_that_dies_or_hangs_is_a_failed_line(ended: Any, said: str, monkeypatch: pytest.MonkeyPatch):
    def run(command: list[str], **_: Any) -> Any:
        assert command[-5:-2] == ["--only", "memory", "--out"] or command[-4:-1] == ["--only", "memory", "--out"]
        if isinstance(ended, Exception):
            raise ended
        return ended

    monkeypatch.setattr(running.subprocess, "run", run)
    [memory] = [check for check in CHECKS if check.name == "memory"]
    line = running.in_a_process(memory, "cuda")
    assert line.state == "failed" and line.said == said and line.remedy == memory.remedy


def test_without_a_gpu_the_twin_is_named(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    with pytest.raises(InputError, match=r"torch sees no CUDA device; .* check the twin with --device cpu"):
        running.run("cuda", None, None)


def test_near_ties_may_go_either_way_and_nothing_else():
    reference = np.array([[-0.1, -2.4], [-0.7, -0.7005], [-1.0, -0.5]])
    found = reference + np.array([[0, 0.0004], [-0.0004, 0.0004], [0, 0]])
    figures = compare(reference, found, NEAR["float32"])
    assert figures["near_ties"] == pytest.approx(1 / 3) and figures["same_letter"] == pytest.approx(2 / 3)
    assert figures["largest_difference"] == pytest.approx(4e-4) and not problems_of("float32", figures)
    other = compare(reference, reference[:, ::-1], NEAR["float32"])
    assert other["other_letters_beyond_near_ties"] == 2
    [apart, letters] = problems_of("float32", other)
    assert "differ by 2.3" in apart and letters == "2 letters differ that are no near ties"
    assert problems_of("bfloat16", other) == ["0% of the letters are those of float32, less than 90%"]
    broken = compare(reference, found * np.nan, NEAR["float32"])
    assert problems_of("float32", broken) == ["log-probabilities are not finite"]


def test_what_vllm_must_do_is_judged():
    sizes = replace(CPU, contexts=1, reports=1)
    from scripts.check_gpu.models import chosen_contexts
    from task.prompts import report_answer

    [context] = chosen_contexts(1)
    reply = report_answer(context, [10.0, -20.0, 30.0, 40.0, 50.0])
    base, moved = np.array([[-0.1, -2.4], [-3.0, -0.1]]), np.array([[-2.0, -0.2], [-0.1, -3.0]])

    def answers(adapted: Any, said: str, computed: int = 60) -> Answers:
        replies: dict[str, list[str | None]] = {"adapted": [said], "base": [reply]}
        return Answers({"adapted": adapted, "base": base}, replies, {"prompt": 100, "computed": computed})

    alone = Answers({"base": base}, {"base": [reply]}, {"prompt": 100, "computed": 60})
    good = judge(answers(moved, reply), alone, answers(moved, reply), 0.01, sizes)
    assert good["share_from_cache"] == 0.4 and good["same_reply"] == good["grammar_obeyed"] == 1
    assert own_problems(good, many=True) == [] and problems_of("float32", good) == []
    bad = judge(answers(base, "no report", 100), alone, answers(moved, reply), 0.01, sizes)
    assert own_problems(bad, many=True) == [
        "adapters change nothing: answers are those of the base model",
        "only 50% of the constrained reports can be read",
        "no prompt token came from the cache",
    ]
    assert len(own_problems(bad, many=False)) == 2 and len(problems_of("float32", bad)) == 3


def test_peak_memory_of_tensors_on_a_cpu():
    def run() -> None:
        first = torch.zeros(1_000_000)
        both = first + 1
        del first, both
        torch.zeros(500_000)

    assert peak_on_cpu(run)["peak"] == pytest.approx(8e6, rel=0.01)


def test_attention_that_is_wrong_at_some_lengths_is_found(monkeypatch: pytest.MonkeyPatch):
    """One key-value head is a view of itself; the planted fault is that of pytorch issue 191937."""
    right = torch.nn.functional.scaled_dot_product_attention

    def wrong(query: torch.Tensor, key: torch.Tensor, value: torch.Tensor, attn_mask: torch.Tensor) -> torch.Tensor:
        fault = 0.5 if key.stride(1) == 0 and key.shape[2] % 32 == 1 else 0.0
        return right(query, key, value, attn_mask=attn_mask) + fault

    monkeypatch.setattr("scripts.check_gpu.attention.scaled_dot_product_attention", wrong)
    assert {*wrong_lengths(1, "float32", "cpu")} == {65, 97, 129}
    assert wrong_lengths(2, "float32", "cpu") == {}


def test_the_rate_of_a_product_is_counted_as_two_operations_a_step(monkeypatch: pytest.MonkeyPatch):
    ticks = iter(range(1000))
    monkeypatch.setattr("scripts.check_gpu.product.time.perf_counter", lambda: float(next(ticks)))
    assert flops("cpu", 8, torch.float32) == 2 * 8**3


def test_the_table_names_each_failed_line_with_its_remedy(twin: CheckRecord, capsys: pytest.CaptureFixture[str]):
    bad = Line(name="memory", about="predicted [memory]", state="failed", said="1.2 of it", remedy="fewer rows")
    record = twin.model_copy(update={"lines": [twin.lines[0], bad], "memory_gb": 80.0, "name": "Some GPU"})
    show(record, Console(width=120))
    said = capsys.readouterr().out
    assert "Some GPU, 80 GB" in said and "memory failed: fewer rows" in said
    assert "1 passed, 1 failed, 0 skipped" in said and record.failed == [bad]


def test_a_record_of_another_version_is_refused(twin: CheckRecord, tmp_path: Path):
    write_record(tmp_path / "a.json", twin)
    assert read_record(tmp_path / "a.json") == twin
    values = {**json.loads((tmp_path / "a.json").read_text()), "format": 9}
    (tmp_path / "a.json").write_text(json.dumps(values))
    with pytest.raises(InputError, match=r"format 9, this version reads 1; check again"):
        read_record(tmp_path / "a.json")


@pytest.mark.parametrize("state", ["passed", "failed"])
def test_the_exit_status_tells(state: Any, twin: CheckRecord, monkeypatch: pytest.MonkeyPatch):
    from scripts.check_gpu import __main__ as command

    line = Line(name="speed", about="x", state=state, said="y")
    monkeypatch.setattr(command, "run", lambda *_: twin.model_copy(update={"lines": [line]}))
    monkeypatch.setattr(sys, "argv", ["check_gpu", "--device", "cpu", "--only", "speed"])
    with pytest.raises(SystemExit) as ended:
        command.main()
    assert ended.value.code == (state == "failed")
