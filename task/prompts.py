"""The words a model reads: one table of prompts, and the answers it is taught to give.

A prompt opens with all that trials of one context share (instruction, person, question) and ends with the two options,
so that an engine can compute the shared beginning once.
"""

from __future__ import annotations

import json
from collections.abc import Iterable
from typing import Literal, TypedDict

from task.contexts import ChoiceContext

Measure = Literal["decisions", "reports"]
"""What a trial measures: the choice between two options, or the weights that the model says it used."""


class Message(TypedDict):
    """One chat message, as `tokenizer.apply_chat_template` and TRL read it."""

    role: Literal["system", "user", "assistant"]
    content: str


# Some chat templates put in a system prompt of their own when none is given; an explicit one is the same everywhere.
SYSTEM = "You answer as the person you are asked to imagine."

INSTRUCTIONS: dict[Measure, str] = {
    "decisions": "Choose between two options. Reply with one letter and nothing else: A or B.",
    "reports": (
        "Two options are shown. Say how strongly each attribute weighs in your choice between them: a whole number "
        "from -100 (more of it counts fully against an option) through 0 (it plays no part) to 100 (more of it counts "
        "fully for an option). Reply with one JSON object and nothing else: the attribute names, in order, each with "
        "its number. Leave out the choice itself."
    ),
}


def messages(
    measure: Measure, context: ChoiceContext, option_a: Iterable[float], option_b: Iterable[float]
) -> list[Message]:
    """The prompt of one trial, with `option_a` and `option_b` as shape (attributes,) values in the shown order."""
    text = "\n".join(
        [
            INSTRUCTIONS[measure],
            "",
            f"Imagine you are {context.agent}. {context.question}",
            "",
            "Option A",
            *_option_lines(context, option_a),
            "",
            "Option B",
            *_option_lines(context, option_b),
        ]
    )
    return [{"role": "system", "content": SYSTEM}, {"role": "user", "content": text}]


def decision_answer(chooses_a: bool) -> str:
    """The reply that states a choice."""
    return "A" if chooses_a else "B"


def report_answer(context: ChoiceContext, weights: Iterable[float]) -> str:
    """The reply that states weights: a JSON object in attribute order with default spacing, whole numbers."""
    values = [round(float(w)) for w in weights]
    return json.dumps(dict(zip(context.attribute_names, values, strict=True)), ensure_ascii=False)


def report_grammar(context: ChoiceContext) -> str:
    """Grammar of the reports that can be read, for constrained decoding (GBNF, as xgrammar and vLLM take it).

    A JSON object with every attribute name in order, whole numbers from -100 to 100 and JSON's default spacing, just as
    `report_answer` writes it. A JSON schema says the same of the values, but engines differ in the spacing that they
    let it have, and xgrammar 0.2.8 mangles some names on the way (`ße` becomes another character).
    """
    keys = [json.dumps(name, ensure_ascii=False) + ": " for name in context.attribute_names]
    # Names may hold quotes and backslashes: escaped by JSON above, and once more here as literals of the grammar.
    literals = ['"' + key.replace("\\", "\\\\").replace('"', '\\"') + '"' for key in keys]
    pairs = ' ", " '.join(f"{literal} weight" for literal in literals)
    return f'root ::= "{{" {pairs} "}}"\nweight ::= "0" | "-"? ([1-9] [0-9]? | "100")\n'


def _option_lines(context: ChoiceContext, values: Iterable[float]) -> list[str]:
    return [
        f"- {attribute.name}: {value:.{attribute.decimals}f} {attribute.units}".rstrip()
        for attribute, value in zip(context.attributes, values, strict=True)
    ]
