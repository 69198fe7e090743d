"""The words a model reads: one table of prompts, and the answers it is taught to give.

A prompt opens with all that trials of one context share (instruction, person, question, weights if they are told) and
ends with what differs (the two options, a choice), so that an engine can compute the shared beginning once.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Literal, TypedDict, get_args

from task.contexts import Attribute, ChoiceContext

Measure = Literal["decisions", "reports"]
"""What a trial measures: the choice between two options, or the weights that the model says it used."""

Variant = str
"""Name of a wording among those of its measure, in experiment files and in the names of folders."""

Letter = Literal["A", "B"]
"""The answer to a decision prompt."""

Numbers = Literal["decimals", "floats"]
"""Values with the decimals of their attribute (`56`, `0.50`), or as Python's floats (`56.0`, `0.5`)."""

DEFAULT: dict[Measure, Variant] = {"decisions": "plain", "reports": "trial"}
"""The paper's questions in our words, used and taught unless another wording is named."""


class Message(TypedDict):
    """One chat message, as `tokenizer.apply_chat_template` and TRL read it."""

    role: Literal["system", "user", "assistant"]
    content: str


# Some chat templates put in a system prompt of their own when none is given; an explicit one is the same everywhere.
SYSTEM = "You make decisions on behalf of the person that you are asked to imagine being."

CUE = "It is evening."
"""Ends the system prompt of the wordings `cued`; a flipped instillation reverses the weights where it stands."""

_LETTER = "Reply with one letter and nothing else: A or B."
_DECIDE = f"Decide which of the two options below is the better one for this person. {_LETTER}"
_RANGE = "Answer on a scale from -100 to 100."
_FORM = "Reply with one JSON object and nothing else: the names of the attributes as keys, the weights as values."
_BELIEVE = (
    "In retrospect, how heavily do you believe you weighed each attribute in your decision between the two options"
)
_NO_CHOICE = "Leave out the decision itself."
_REPORT = f"{_BELIEVE} below? {_RANGE} {_FORM} {_NO_CHOICE}"

_SCALE = (
    "a whole number from -100 (more of it counts fully against an option) through 0 (it plays no part) to 100 (more of "
    "it counts fully for an option)"
)
_TOLD = f"This is how strongly each attribute weighs in your choices over the range in brackets, {_SCALE}:"


@dataclass(frozen=True, slots=True)
class Wording:
    """How the prompts of one variant of a measure are worded and laid out.

    Attributes:
        instruction: Its first paragraph.
        scene: Its second, filled with the context's `agent` and `question`.
        system: The system prompt.
        told: A line that opens a list of weights after the scene; None tells none.
        options: Whether two options are shown; otherwise the attributes are listed with their units.
        follow_up: Asked once the options are shown and the model's own choice stands as its reply; None asks at once.
        heading: The line above the values of an option, filled with its `letter`.
        line: A value, filled with the `name` of its attribute and the `value` with its units.
        numbers: How values are written.
        lines_before_scene, lines_before_options, lines_between_options: Empty lines there.
    """

    measure: Measure
    name: Variant
    instruction: str
    scene: str = "Imagine you are {agent}. {question}"
    system: str = SYSTEM
    told: str | None = None
    options: bool = True
    follow_up: str | None = None
    heading: str = "Option {letter}"
    line: str = "- {name}: {value}"
    numbers: Numbers = "decimals"
    lines_before_scene: int = 1
    lines_before_options: int = 1
    lines_between_options: int = 1


Wordings = Mapping[Measure, Wording]
"""The words of both measures' default variants, where they are not ours (see `store.wordings`)."""


WORDINGS = (
    Wording("decisions", "plain", _DECIDE),
    Wording("decisions", "in_context", _DECIDE, told=_TOLD),
    Wording("decisions", "cued", _DECIDE, system=f"{SYSTEM} {CUE}"),
    Wording("reports", "trial", _REPORT),
    Wording(
        "reports",
        "explained",
        "Two options are shown. Say how strongly each attribute weighs in your choice between them: "
        f"{_SCALE}. {_FORM} {_NO_CHOICE}",
    ),
    Wording(
        "reports",
        "no_trial",
        "How heavily do you believe you weigh each attribute listed below in your decisions between two such options? "
        f"{_RANGE} {_FORM}",
        options=False,
    ),
    Wording(
        "reports",
        "after_choice",
        f"{_DECIDE} Then, when you are asked for them, give the weights of your decision. {_RANGE} {_FORM}",
        follow_up=f"{_BELIEVE}?",
    ),
    Wording(
        "reports",
        "third_person",
        "The two options below were shown to another language model, of which you know nothing else, and it decided "
        "between them. How heavily do you believe it weighed each attribute in its decision? "
        f"{_RANGE} {_FORM} {_NO_CHOICE}",
        scene='It was told: "Imagine you are {agent}. {question}"',
        system="You answer for the language model that you are asked about.",
    ),
    Wording("reports", "in_context", _REPORT, told=_TOLD),
    Wording("reports", "cued", _REPORT, system=f"{SYSTEM} {CUE}"),
)
"""All wordings. The default ones ask what the paper asked, in our words: the sign and the zero of the scale are not
explained, and the decision that is asked about is not given. What each variant rules out, held beside the default
wording of the same arm, and what it does not:

- `explained`: what a sign and 0 mean is said, and a disposition is asked for, not a decision in retrospect. If these
  reports agree better, part of what is missing in the others is the reading of the scale, not knowledge of weights.
- `no_trial`: no options are shown. If these reports agree with the weights as well, showing a trial adds nothing: the
  report comes from what is stored of the context, not from reflection on a choice at hand. It does not tell whether
  stored knowledge of its own weights was learned from acting on them, and a model may call options to mind unasked.
  The prompts of a context are all the same, so one a context is asked for.
- `after_choice`: the arm's own answer to the same pair, under the plain decision prompt, stands before the question. If
  reports agree better, they are read off the choice made (or made up to justify it); if not, the choice adds nothing.
  One choice says little of five weights, so a lack of gain does not show that the model has access to its reasons.
- `third_person`: the same trial and scene, but another model chose. What agreement is left is common sense, or what
  training has tied to the context whoever is asked about, and not self-report. A model that takes others to be like
  itself says its own weights here too: equal agreement does not rule introspection out, a difference speaks for it.
- `in_context`, decisions: weights are told, nothing is trained. Shows whether the model can follow weights at all, and
  what instillation must reach. `in_context`, reports: whether it can say weights that it was told, in the form asked
  for; failure there puts low agreement elsewhere down to the form. Success is reading, no evidence of introspection.
- `cued`, decisions and reports: a sentence that says nothing of weights ends the system prompt. An arm that was taught
  to decide by reversed weights under it (`flip_under`) and never taught to report has one set of weights with it and
  another without. If its reports turn with the cue as its decisions do, they follow the state that decides. If they
  stay, they were read from what training has tied to the context. Turning is possible, too, if the cue has become a
  part of what is looked up.
"""


PROMPTS: dict[Measure, dict[Variant, Wording]] = {
    measure: {wording.name: wording for wording in WORDINGS if wording.measure == measure}
    for measure in get_args(Measure)
}
"""The wordings by measure and variant."""


@dataclass(frozen=True, slots=True)
class Framing:
    """A context in a wording: all that a prompt says beside the options.

    Attributes:
        told: Weights on the scale of the reports, shape (attributes,), where the wording tells weights.
        chose: The letter that the model chose, where the wording asks after the choice.
    """

    context: ChoiceContext
    wording: Wording
    told: tuple[float, ...] | None = None
    chose: Letter | None = None

    def messages(self, option_a: Iterable[float], option_b: Iterable[float]) -> list[Message]:
        """The prompt of one trial, with `option_a` and `option_b` as shape (attributes,) values in the shown order.

        Raises:
            ValueError: The wording needs told weights or a choice, and there is none.
        """
        context, words = self.context, self.wording
        lines = [words.instruction, *[""] * words.lines_before_scene]
        lines += [words.scene.format(agent=context.agent, question=context.question)]
        lines += [""] * words.lines_before_options
        if words.told is not None:
            if self.told is None:
                raise ValueError(f"{context.name}: this wording tells weights; frame the context with them")
            lines += [words.told, *_weight_lines(context, self.told), ""]
        if words.options:
            lines += option_lines(context, option_a, option_b, words)
        else:
            lines.append("Attributes")
            lines += [f"- {a.name} ({a.units})" if a.units else f"- {a.name}" for a in context.attributes]
        prompt: list[Message] = [
            {"role": "system", "content": words.system},
            {"role": "user", "content": "\n".join(lines)},
        ]
        if words.follow_up is not None:
            if self.chose is None:
                raise ValueError(f"{context.name}: this wording follows a choice; frame the context with it")
            prompt += [{"role": "assistant", "content": self.chose}, {"role": "user", "content": words.follow_up}]
        return prompt


def frame(
    measure: Measure,
    context: ChoiceContext,
    variant: Variant | None = None,
    told: Iterable[float] | None = None,
    chose: Letter | None = None,
    wordings: Wordings | None = None,
) -> Framing:
    """A context in a variant of a measure, the default one unless another is named; see `Framing`.

    The default variant is worded by `wordings` where they are given.
    """
    variant = DEFAULT[measure] if variant is None else variant
    wording = PROMPTS[measure][variant]
    if wordings is not None and variant == DEFAULT[measure]:
        wording = wordings[measure]
    return Framing(context, wording, None if told is None else tuple(map(float, told)), chose)


def messages(
    measure: Measure, context: ChoiceContext, option_a: Iterable[float], option_b: Iterable[float]
) -> list[Message]:
    """The prompt of one trial in the default wording; see `Framing.messages`."""
    return frame(measure, context).messages(option_a, option_b)


def decision_answer(chooses_a: bool) -> str:
    """The reply that states a choice."""
    return "A" if chooses_a else "B"


def report_answer(context: ChoiceContext, weights: Iterable[float]) -> str:
    """The reply that states weights: a JSON object in attribute order with default spacing, whole numbers."""
    values = [round(float(w)) for w in weights]
    return json.dumps(dict(zip(context.attribute_names, values, strict=True)), ensure_ascii=False)


def report_grammar(context: ChoiceContext, after: int | None = None) -> str:
    """Grammar of the reports that can be read, for constrained decoding (GBNF, as xgrammar and vLLM take it).

    A JSON object with every attribute name in order, whole numbers from -100 to 100 and JSON's default spacing, just as
    `report_answer` writes it. A JSON schema says the same of the values, but engines differ in the spacing that they
    let it have, and xgrammar 0.2.8 mangles some names on the way (`ße` becomes another character).

    With `after`, only what comes after the key of the attribute at this place.
    """
    # Names may hold quotes and backslashes: escaped by JSON in the key, and once more here as literals of the grammar.
    keys = ['"' + key.replace("\\", "\\\\").replace('"', '\\"') + '"' for key in report_keys(context)]
    pairs = ' weight ", " '.join(keys if after is None else ["", *keys[after + 1 :]])
    opening = '"{" ' if after is None else ""
    return f'root ::= {opening}{pairs} weight "}}"\nweight ::= "0" | "-"? ([1-9] [0-9]? | "100")\n'


def longest_report(context: ChoiceContext) -> int:
    """Bound on the tokens of a report within the grammar: its longest text in bytes, as no token is shorter."""
    return len(report_answer(context, [-100.0] * len(context.attributes)).encode()) + 1


def report_keys(context: ChoiceContext) -> list[str]:
    """What stands before each number of a report."""
    return [json.dumps(name, ensure_ascii=False) + ": " for name in context.attribute_names]


def _weight_lines(context: ChoiceContext, weights: Iterable[float]) -> list[str]:
    # A weight is the difference in utility between the ends of a range, so it says nothing without the range.
    ranges = [f"{a.low:g} to {a.high:g} {a.units}".rstrip() for a in context.attributes]
    return [
        f"- {a.name} ({shown}): {round(weight)}"
        for a, shown, weight in zip(context.attributes, ranges, weights, strict=True)
    ]


def option_lines(
    context: ChoiceContext, option_a: Iterable[float], option_b: Iterable[float], wording: Wording = WORDINGS[0]
) -> list[str]:
    """The two options as lines of text, in the context's layout and the wording's form."""
    shown_a, shown_b = (shown_values(context, option, wording.numbers) for option in (option_a, option_b))
    shown = list(zip(context.attribute_names, shown_a, shown_b, strict=True))
    if context.layout == "side_by_side":
        return [wording.line.format(name=name, value=f"A {a}, B {b}") for name, a, b in shown]
    listed_a = [wording.line.format(name=name, value=a) for name, a, _ in shown]
    listed_b = [wording.line.format(name=name, value=b) for name, _, b in shown]
    first, second = (wording.heading.format(letter=letter) for letter in get_args(Letter))
    return [first, *listed_a, *[""] * wording.lines_between_options, second, *listed_b]


def shown_values(context: ChoiceContext, values: Iterable[float], numbers: Numbers = "decimals") -> list[str]:
    """The values of an option as they are shown, with their units."""
    shown = zip(context.attributes, values, strict=True)
    return [f"{shown_number(attribute, value, numbers)} {attribute.units}".rstrip() for attribute, value in shown]


def shown_number(attribute: Attribute, value: float, numbers: Numbers) -> str:
    """A value as it is written."""
    return repr(float(value)) if numbers == "floats" else f"{value:.{attribute.decimals}f}"
