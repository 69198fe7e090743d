"""The page of a run in a real browser: clicks and keys, screens of two sizes, dark, on paper, without scripts."""

from __future__ import annotations

import base64
import gzip
import json
import re
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pandas as pd
import pyarrow.parquet as pq
import pytest

from analysis.pages.report import write_report
from analysis.run import summary
from analysis.study.results import RunResults
from store.weights import load_weights
from task.prompts import Measure, frame
from task.replies import REASONS, UNDECIDED

sync_api = pytest.importorskip("playwright.sync_api", reason="needs playwright: pip install -e '.[dev]'")

BROWSER = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)

pytestmark = pytest.mark.skipif(BROWSER is None, reason="needs a browser: apt-get install chromium")


@pytest.fixture(scope="session")
def browser() -> Iterator[Any]:
    with sync_api.sync_playwright() as driver:
        started = driver.chromium.launch(executable_path=BROWSER, args=["--no-sandbox"], timeout=120_000)
        yield started
        started.close()


class Opened:
    """A page, and what its console said."""

    def __init__(self, browser: Any, path: Path, **screen: Any) -> None:
        self.page = browser.new_page(**{"viewport": {"width": 1200, "height": 900}, **screen})
        self.page.set_default_timeout(60_000)
        self.said: list[str] = []
        self.page.on("console", lambda message: self.said.append(message.text))
        self.page.on("pageerror", lambda error: self.said.append(str(error)))
        self.page.goto(path.resolve().as_uri())
        if screen.get("java_script_enabled", True):
            self.page.wait_for_function("data !== undefined || document.getElementById('unpacking').textContent")

    def texts(self, selector: str) -> list[str]:
        found: list[str] = self.page.locator(selector).all_text_contents()
        return found

    def chosen(self, which: str) -> str:
        chosen: str = self.page.evaluate(f"document.getElementById('{which}').selectedOptions[0].textContent")
        return chosen


@pytest.fixture(scope="module")
def report(simulated_run: Path) -> Path:
    return simulated_run / "analysis" / "report.html"


@pytest.fixture
def opened(browser: Any, report: Path) -> Iterator[Opened]:
    shown = Opened(browser, report)
    shown.page.wait_for_selector("#explore:not([hidden])")
    yield shown
    shown.page.close()
    assert shown.said == []


def prompts(results: RunResults, row: dict[str, Any], measure: Measure) -> list[str]:
    """The messages of a row of a trial file."""
    first, second = ([row[f"{side}_{k + 1}"] for k in range(5)] for side in ("first", "second"))
    a, b = (first, second) if row["first_as_a"] else (second, first)
    return [m["content"] for m in frame(measure, results.contexts[row["context"]]).messages(a, b)]


def rows_of(results: RunResults, folder: str, context: str) -> list[dict[str, Any]]:
    table = pq.read_table(results.run.trials / folder / "trials.parquet").to_pylist()
    return [row for row in table if row["context"] == context]


def rows(results: RunResults, folder: str, context: str, index: int) -> list[dict[str, Any]]:
    """Both orders of a pair, the first option as A first."""
    found = [row for row in rows_of(results, folder, context) if row["index"] == index]
    return sorted(found, key=lambda row: row["first_as_a"], reverse=True)


def test_a_context_and_its_trials_are_what_their_files_say(opened: Opened, passed: RunResults):
    page, name = opened.page, passed.groups["instilled"][2]
    page.select_option("#context", label=name.replace("_", " "))
    learned = passed.measured["instilled"]
    weights = learned.weights[learned.contexts.index(name)]
    table = page.locator("#weights table").nth(1)
    assert table.locator("caption").inner_text().startswith("instilled")
    for row, cells in enumerate(table.locator("tbody tr").all()):
        texts = [text.replace("\N{MINUS SIGN}", "-") for text in cells.locator("td.figure").all_text_contents()]
        shown = [passed.targets[name][row], weights[row]]
        assert [float(text) for text in texts[:2]] == pytest.approx(shown, abs=0.56)
        assert cells.locator(".bars span").count() >= 3
    page.select_option("#file", label="decisions of instilled")
    page.click("#trial-after")
    page.click("#trial-after")
    page.click("#trial-before")
    expected = rows(passed, "instilled/decisions", name, 1)
    assert opened.texts("#orders .message") == [text for row in expected for text in prompts(passed, row, "decisions")]
    for article, row in zip(page.locator("#orders article").all(), expected, strict=True):
        told = article.locator("dl").inner_text().replace("\N{MINUS SIGN}", "-")
        assert [float(v) for v in re.findall(r"(-?\d+\.\d{4}) \(", told)] == pytest.approx(
            [row["logp_a"], row["logp_b"]], abs=6e-5
        )
        first = (row["letter"] == "A") == row["first_as_a"]
        assert f"{row['letter']}, the {'first' if first else 'second'} option" in told


def test_a_report_is_shown_raw_and_as_it_was_read_or_why_not(opened: Opened, passed: RunResults):
    page = opened.page
    table = pd.read_parquet(passed.run.trials / "instilled/reports/trials.parquet")
    for missing in (True, False):
        row = table[table["reason"].notna() == missing].iloc[0].to_dict()
        page.select_option("#context", label=row["context"].replace("_", " "))
        page.select_option("#file", label="reports of instilled")
        page.select_option("#trial", index=int(row["index"]))
        assert opened.texts("#orders .message") == prompts(passed, row, "reports")
        assert opened.texts("#orders .reply") == [row["reply"]]
        told = page.locator("#orders dl").inner_text()
        if missing:
            assert f"missing: no json. {REASONS['no_json']}" in told and "no json" in opened.chosen("trial")
        else:
            names = passed.contexts[row["context"]].attribute_names
            values = [f"{row[f'value_{k + 1}']:.0f}".replace("-", "\N{MINUS SIGN}") for k in range(5)]
            assert ", ".join(f"{n} {v}" for n, v in zip(names, values, strict=True)) in told


def test_keys_choose_a_context_and_a_trial(opened: Opened, passed: RunResults):
    page, names = opened.page, [name.replace("_", " ") for name in passed.contexts]
    page.focus("#context")
    page.keyboard.press("]")
    page.keyboard.press("]")
    page.keyboard.press("[")
    assert opened.chosen("context") == names[1]
    page.keyboard.press("ArrowDown")
    assert opened.chosen("context") == names[2]
    page.keyboard.press("Tab")
    page.keyboard.press("Enter")
    assert opened.chosen("context") == names[3], "the button after it"
    page.keyboard.press(".")
    assert opened.chosen("trial").startswith("1: ")
    page.keyboard.press(",")
    page.keyboard.press(",")
    assert opened.chosen("trial").startswith("39: "), "before the first comes the last"


def test_points_tell_their_context_and_attribute_and_open_it(opened: Opened, passed: RunResults, report: Path):
    packed = re.search(r'id="packed">([^<]*)<', report.read_text())
    assert packed
    found = json.loads(gzip.decompress(base64.b64decode(packed[1])))
    page, points = opened.page, found["points"][3]
    left, top, width, height = found["panels"]["introspection_trained"]
    assert points["name"] == "introspection_trained"
    picture = page.locator('[data-figure="scatter"]')
    picture.scroll_into_view_if_needed()
    box = picture.bounding_box()
    assert box
    row, k = 4, 2
    x, y = points["x"][row][k], points["y"][row][k]
    place = box["width"] * (left + width * (x + 110) / 220), box["height"] * (top + height * (110 - y) / 220)
    picture.hover(position={"x": place[0], "y": place[1]})
    context = found["contexts"][points["contexts"][row]]
    tip = page.locator(".tip")
    assert tip.is_visible()
    words = context["name"].replace("_", " ")
    expected = f"{words}, {context['attributes'][k]['name']}: reported {x:.0f}, learned {y:.0f}"
    assert tip.inner_text() == expected.replace(" -", " \N{MINUS SIGN}")
    picture.click(position={"x": place[0], "y": place[1]})
    assert opened.chosen("context") == words
    rings = [(ring.bounding_box(), picture.bounding_box()) for ring in page.locator(".ring").all()]
    at = [(r["x"] + r["width"] / 2 - b["x"], r["y"] + r["height"] / 2 - b["y"]) for r, b in rings if r and b]
    assert any(abs(x - place[0]) < 2 and abs(y - place[1]) < 2 for x, y in at)


def test_every_kind_of_trial_can_be_opened(browser: Any, worded: RunResults, tmp_path: Path):
    write_report(worded, summary(worded), [], tmp_path / "report.html")
    shown = Opened(browser, tmp_path / "report.html")
    shown.page.wait_for_selector("#orders article")
    name = "book_club"  # has a trial of each kind
    shown.page.select_option("#context", label="book club")
    told: dict[str, list[str]] = {}
    for file in shown.page.locator("#file option").all_text_contents():
        shown.page.select_option("#file", label=file)
        told[file] = []
        for trial in range(shown.page.locator("#trial option").count()):
            shown.page.select_option("#trial", index=trial)
            told[file] += shown.texts("#orders article")
    assert shown.said == []
    shown.page.close()
    assert [len(trials) for trials in told.values()] == [60, 40, 4, 3, 1, 5, 3]
    text = {file: " ".join(trials) for file, trials in told.items()}
    assert not any("undefined" in words or "NaN" in words for words in text.values())
    decisions = text["decisions of instilled"]
    assert f"no decision: no letter. {UNDECIDED['no_letter']}" in decisions
    assert f"log P(A)not finitelog P(B)not finiteread asno decision: not finite. {UNDECIDED['not_finite']}" in decisions
    assert "You <b>choose</b>." in decisions and re.search(r"= \d+\.0 ", decisions)
    weights = load_weights(worded.run.told_weights)[name]
    assert all(f"): {round(w)}" in text["decisions of off the shelf (in context)"] for w in weights)
    forced = told["reports of instilled (constrained)"]
    assert [("free reply" in trial) for trial in forced] == [True, True, False]
    followed = rows_of(worded, "instilled/reports-after_choice", name)
    for trial, row in zip(told["reports of instilled (after choice)"], followed, strict=True):
        assert ("no choice" in trial) == (row["reason"] == "no_choice")
        assert (f"assistant{row['letter']}user" in trial) == (row["letter"] is not None)


def test_it_fits_a_telephone_and_a_desk_by_day_and_night_and_prints_whole(browser: Any, report: Path):
    grounds = {}
    for width in (380, 1200):
        for scheme in ("light", "dark"):
            shown = Opened(browser, report, viewport={"width": width, "height": 800}, color_scheme=scheme)
            page = shown.page
            assert page.evaluate("document.documentElement.scrollWidth <= innerWidth"), (width, scheme)
            page.evaluate("for (const part of document.querySelectorAll('details')) part.open = true")
            assert page.evaluate("document.documentElement.scrollWidth <= innerWidth"), (width, scheme, "opened")
            colours = "[document.body, document.querySelector('#orders pre'), document.querySelector('select')]"
            style = f"{colours}.map(e => [getComputedStyle(e).backgroundColor, getComputedStyle(e).color])"
            grounds[scheme] = page.evaluate(style)
            assert shown.said == []
            if (width, scheme) != (1200, "dark"):
                page.close()
    assert all(a != b for day, night in zip(*grounds.values(), strict=True) for a, b in zip(day, night, strict=True))
    page.evaluate("for (const part of document.querySelectorAll('details')) part.open = false")
    hidden = "[...document.querySelectorAll('details table')].filter(e => !e.checkVisibility()).length"
    assert page.evaluate(hidden) > 5
    page.emulate_media(media="print")
    assert page.evaluate(hidden) == 0
    page.close()


def test_without_scripts_it_can_be_read(browser: Any, report: Path):
    page = Opened(browser, report, java_script_enabled=False).page
    assert page.locator(".verdicts tbody tr").count() == 8
    assert page.locator("noscript").is_visible() and page.locator("#explore").is_hidden()
    page.locator("summary", has_text="Differences between comparisons").click()
    assert page.get_by_text("r(introspection_trained) - r(instilled)").is_visible()
    page.close()


def test_trials_beside_the_page_are_loaded_or_missed_in_words(
    browser: Any, passed: RunResults, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("analysis.pages.explorer.EMBEDDED", 0)
    write_report(passed, summary(passed), [], tmp_path / "report.html")
    page = Opened(browser, tmp_path / "report.html").page
    page.wait_for_selector("#orders article")
    page.close()
    (tmp_path / "trials.js").unlink()
    page = Opened(browser, tmp_path / "report.html").page
    assert "trials.js, which does not lie beside this page" in page.locator("#unpacking").inner_text()
    page.close()
