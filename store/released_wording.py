"""The words of the released fine-tuning files, read out of their rows into a wording file.

The files are JSON Lines whose rows hold `messages`: a system text, a prompt, an answer. A row is a decision if its
answer is a letter, else a report. What of a prompt is the person, the question, and the names and units of the
attributes is known from the released contexts; what is left are the words and the layout.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import get_args

from store.contexts import load_released_contexts
from store.examples import read_example
from store.files import write_text
from store.texts import parse_json, read_lines
from store.wordings import WordingFile, WordingText, dump_wordings
from task.contexts import ChoiceContext
from task.errors import InputError
from task.prompts import Measure, Numbers, frame
from task.replies import parse_letter


@dataclass(frozen=True)
class Row:
    """A row of a fine-tuning file: its place, its texts, and the context that it is about."""

    where: str
    system: str
    prompt: str
    answer: str
    context: ChoiceContext

    @property
    def measure(self) -> Measure:
        """What it teaches."""
        return "reports" if parse_letter(self.answer) is None else "decisions"

    def error(self, what: str) -> InputError:
        """What is wrong with it, in one line."""
        return InputError(f"{self.where}: {what}; only files in the form of the paper's release can be read")


def write_wording(folder: Path, out: Path) -> dict[Measure, int]:
    """Read the wording of a folder of released files and write it as a wording file.

    Every row is rendered from the wording and the values that it shows, and must be equal to the last character.

    Returns:
        How many rows of each measure were rendered.

    Raises:
        InputError: A measure without rows, a row of another form, or one that is rendered otherwise; or `out` is there
            and says something else.
    """
    if not out.parent.is_dir():
        raise InputError(f"{out}: there is no folder {out.parent}; make it first")
    rows: dict[Measure, list[Row]] = {measure: [] for measure in get_args(Measure)}
    for row in read_rows(folder):
        rows[row.measure].append(row)
    if missing := [measure for measure, found in rows.items() if not found]:
        raise InputError(f"{folder}: no fine-tuning file (*.jsonl with messages) of {missing[0]}; put it there")
    file = WordingFile(decisions=read_text(rows["decisions"]), reports=read_text(rows["reports"]))
    for measure, found in rows.items():
        check(file, measure, found)
    text = dump_wordings(file)
    if out.exists() and (not out.is_file() or out.read_bytes() != text.encode()):
        raise InputError(f"{out}: is there already, and says something else; move it away first")
    write_text(out, text)
    return {measure: len(found) for measure, found in rows.items()}


def read_rows(folder: Path) -> Iterator[Row]:
    """The rows of all fine-tuning files of a folder; JSON Lines without `messages` are passed over."""
    contexts = _Contexts(load_released_contexts(folder))
    for path in sorted(folder.glob("*.jsonl")):
        for where, line in read_lines(path).items():
            values = parse_json(line, where, "fetch the file again")
            if isinstance(values, dict) and "messages" not in values:
                continue
            messages = read_example(line, where).messages
            if [message.role for message in messages] != ["system", "user", "assistant"]:
                raise InputError(f"{where}: messages of other roles than system, user, assistant; leave the file out")
            system, prompt, answer = (message.content for message in messages)
            yield Row(where, system, prompt, answer, contexts.of(prompt, where))


class _Contexts:
    """Finds the context that a prompt is about."""

    def __init__(self, contexts: Sequence[ChoiceContext]) -> None:
        self._by_question: dict[str, list[ChoiceContext]] = {}
        for context in contexts:
            self._by_question.setdefault(context.question, []).append(context)

    def of(self, prompt: str, where: str) -> ChoiceContext:
        """The context whose question, person and attributes are all in the prompt."""
        asked = [c for question, found in self._by_question.items() if question in prompt for c in found]
        fitting = [c for c in asked if all(text in prompt for text in (c.agent, *c.attribute_names))]
        if not fitting:
            raise InputError(f"{where}: a prompt about none of the contexts beside it; use files of one release")
        return max(fitting, key=lambda c: len(c.question) + len(c.agent))


def read_text(rows: Sequence[Row]) -> WordingText:
    """The words and the layout of a measure, from the first row; how numbers are written, from all of them."""
    row = rows[0]
    prompt, context = row.prompt, row.context
    question = prompt.index(context.question)
    start = prompt.rfind("\n", 0, max(0, prompt.rfind(context.agent, 0, question))) + 1
    end = question + len(context.question)
    stop = end if (rest := prompt.find("\n", end)) < 0 else rest
    before, scene, after = prompt[:start], prompt[start:stop], prompt[stop:].removeprefix("\n")
    instruction, blocks = before.rstrip("\n"), after.lstrip("\n")
    if not instruction or context.agent not in scene:
        raise row.error("no instruction and scene before the options")
    heading, line, between = _options(row, blocks)
    texts = {
        "system": row.system,
        "instruction": instruction,
        "scene": _template(scene, {"agent": context.agent, "question": context.question}),
        "heading": heading,
        "line": line,
    }
    numbers: Numbers = "floats" if _as_floats(rows, line) else "decimals"
    return WordingText(
        **texts,
        numbers=numbers,
        lines_before_scene=len(before) - len(instruction) - 1,
        lines_before_options=len(after) - len(blocks),
        lines_between_options=between,
    )


def _options(row: Row, text: str) -> tuple[str, str, int]:
    """The heading of an option and the line of a value, as templates, and the empty lines between the options."""
    lines, size = text.split("\n"), len(row.context.attributes)
    first = row.context.attributes[0]
    gap = len(lines) - 2 * (size + 1)
    if gap < 0 or any(lines[1 + size : 1 + size + gap]):
        raise row.error(f"the options are not two blocks of a heading and {size} lines")
    pair = re.compile(r"(?P<before>.*)A(?P<after>.*)\n(?P=before)B(?P=after)")
    headings = pair.fullmatch(f"{lines[0]}\n{lines[1 + size + gap]}")
    if headings is None:
        raise row.error(f"headings {lines[0]!r} and {lines[1 + size + gap]!r}, which differ in more than A and B")
    name, units = re.escape(first.name), re.escape(f" {first.units}" if first.units else "")
    value = re.fullmatch(rf"(?P<before>.*?){name}(?P<sign>.*?)(?P<number>-?\d[\d.]*){units}(?P<after>.*)", lines[1])
    if value is None:
        raise row.error(f"the line {lines[1]!r} is not a name, a number and units")
    heading = "{letter}".join(_escape(part) for part in headings.group("before", "after"))
    before, sign, after = (_escape(part) for part in value.group("before", "sign", "after"))
    return heading, f"{before}{{name}}{sign}{{value}}{after}", gap


def _escape(text: str) -> str:
    return text.replace("{", "{{").replace("}", "}}")


def _template(text: str, places: Mapping[str, str]) -> str:
    """A text in which what is filled in is replaced by its name in braces."""
    text = _escape(text)
    for name, filled in places.items():
        text = text.replace(_escape(filled), f"{{{name}}}")
    return text


def shown_numbers(row: Row, line: str) -> list[list[str]]:
    """The numbers that a row shows, as they are written: of option A and of option B.

    Raises:
        InputError: An attribute is not shown once in each option.
    """
    found = []
    for attribute in row.context.attributes:
        shown = "\0" if not attribute.units else f"\0 {attribute.units}"
        pattern = re.escape(line.format(name=attribute.name, value=shown)).replace("\0", r"(-?\d[\d.]*)")
        numbers = re.findall(rf"^{pattern}$", row.prompt, re.MULTILINE)
        if len(numbers) != 2:
            raise row.error(f"{attribute.name!r} is shown {len(numbers)} times with its units, not 2")
        found.append(numbers)
    return [[a for a, _ in found], [b for _, b in found]]


def _as_floats(rows: Sequence[Row], line: str) -> bool:
    shown = (number for row in rows for option in shown_numbers(row, line) for number in option)
    return all(number == repr(float(number)) for number in shown)


def check(file: WordingFile, measure: Measure, rows: Sequence[Row]) -> None:
    """Render every row from the wording and the values that it shows; the first that differs is an `InputError`."""
    wordings = file.wordings
    for row in rows:
        option_a, option_b = shown_numbers(row, wordings[measure].line)
        framing = frame(measure, row.context, wordings=wordings)
        system, user = framing.messages(map(float, option_a), map(float, option_b))
        if (system["content"], user["content"]) != (row.system, row.prompt):
            raise row.error("its words or its layout are not those of the first row of its kind")
