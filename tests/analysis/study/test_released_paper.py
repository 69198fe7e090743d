"""The command that reproduces the paper, on the files that its authors released."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from support import ROOT

RELEASED = ROOT.parent / "shared" / "released"
PAPER = {  # r, to within .01; contexts and reports behind it
    "learned_vs_target": (0.87, 100, 0),
    "off_the_shelf": (-0.01, 96, 877),
    "instilled": (0.51, 79, 574),
    "introspection_trained": (0.75, 100, 994),
    "native_before": (0.40, 76, 590),
    "native_after": (0.70, 100, 999),
}


@pytest.fixture(scope="session")
def paper(tmp_path_factory: pytest.TempPathFactory) -> tuple[dict[str, Any], Path, str]:
    """The command on the released files: its summary, its folder and what it prints."""
    if not RELEASED.is_dir():
        pytest.skip("the paper's released files are not beside the repository")
    out = tmp_path_factory.mktemp("released") / "out"
    arguments = ["--data", str(RELEASED), "--model", "gpt-4o-mini", "--out", str(out)]
    command = [sys.executable, "-m", "analysis.released", *arguments]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return json.loads((out / "summary.json").read_text()), out, done.stdout


@pytest.mark.parametrize("name", PAPER)
def test_the_papers_figures_are_reproduced(paper: tuple[dict[str, Any], Path, str], name: str):
    found = paper[0][name]
    r, contexts, reports = PAPER[name]
    assert found["r"] == pytest.approx(r, abs=0.01)
    assert paper[0]["printed_in_the_paper"][name] == pytest.approx(r, abs=0.011)
    assert (found["n_contexts"], found["n_points"], found["valid_reports"]) == (contexts, 5 * contexts, reports)
    assert found["total_reports"] == (0 if name == "learned_vs_target" else 1000)
    assert found["boot_low"] < found["r"] < found["boot_high"]
    assert f"{name}: r = {found['r']:.2f} [" in paper[2]


@pytest.mark.parametrize(
    ("name", "learned", "target"), [("instilled", 0.27, 0.01), ("introspection_trained", 0.42, 0.12)]
)
def test_reports_follow_what_was_learned_beyond_what_was_taught(
    paper: tuple[dict[str, Any], Path, str], name: str, learned: float, target: float
):
    found = paper[0][name]
    assert found["r_given_target"] == pytest.approx(learned, abs=0.01)
    assert found["r_of_target_given_learned"] == pytest.approx(target, abs=0.01)
    assert found["r_given_target_low"] > 0.1 and found["over_constant_low"] > 0.3
    predictions = found["predictions"]
    assert predictions["learned"]["share"] > predictions["reported"]["share"] > predictions["constant"]["share"] + 0.1
    assert "Whose weights" in (paper[1] / "report.html").read_text(encoding="utf-8")


def test_what_surrounds_the_papers_figures(paper: tuple[dict[str, Any], Path, str]):
    found, out, _ = paper
    assert found["gate"]["passed"] and found["notes"] == []
    # The paper prints .50, our .505 rounds to .51.
    assert f"{found['instilled']['r']:.2f} {found['instilled_standardised_first']:.2f}" == "0.51 0.50"
    outside = {name: (v["outside"], v["largest"]) for name, v in found["variants"].items()}
    assert outside["off_the_shelf"] == (1, 130) and outside["native_before"] == (1, 2388)
    assert sum(count for count, _ in outside.values()) == 2
    for name, corrected in found["without_noise"].items():
        assert abs(corrected["r"]) > abs(found[name]["r"]) and 0.5 < corrected["reliability_y"] <= 1
    assert found["differences"]["native_after-native_before"]["n_contexts"] == 76
    assert found["differences"]["native_after-native_before"]["boot_low"] > 0.15
    page = (out / "report.html").read_text(encoding="utf-8")
    assert "574/1000" in page and "2388" in page and page.count("data:image/png") == 2
