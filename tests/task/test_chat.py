"""What a chat template must do: the templates that TRL ships, and made-up bad ones; each refusal is one line."""

import re
from pathlib import Path
from typing import Any

import pytest
import trl
from transformers import AutoTokenizer

from support import SMALL_MODEL
from task.chat import answer_ids, check_template, letter_answers, letter_ids, prompt_ids
from task.errors import InputError
from task.prompts import Message

SHIPPED = {path.stem: path.read_text() for path in Path(trl.__file__).parent.glob("chat_templates/*.jinja")}
SYSTEM: Message = {"role": "system", "content": "You decide."}
QUESTION: Message = {"role": "user", "content": "Which one?"}
A: Message = {"role": "assistant", "content": "A"}
REPORT: Message = {"role": "assistant", "content": '{"price": -30}'}
DECISION, REPORTED, FOLLOWED = (
    [SYSTEM, QUESTION, A],
    [SYSTEM, QUESTION, REPORT],
    [SYSTEM, QUESTION, A, QUESTION, REPORT],
)
DIALOGUES = [DECISION, REPORTED, FOLLOWED]
PINNED = {"date_string": "26 Jul 2024"}
NO_THINKING = {"enable_thinking": False}

PLAIN = "{% for m in messages %}[{{ m['role'] }}]{{ m['content'] }}<|im_end|>{% endfor %}"
PLAIN += "{% if add_generation_prompt %}[assistant]{% endif %}"


def tokenizer_with(text: str | None) -> Any:
    """SmolLM2's tokenizer with another chat template, whose marks are tokens."""
    tokenizer = AutoTokenizer.from_pretrained(SMALL_MODEL)
    marks = sorted(set(re.findall(r"<\|?\w+\|?>|</?think>|\[assistant\]", text or "")))
    tokenizer.add_tokens([m for m in marks if m not in tokenizer.get_vocab()], special_tokens=True)
    # Llama 3 and Qwen split text after line ends, SmolLM2 (as GPT-2) before the last: an empty line is one token there.
    tokenizer.add_tokens(["\n\n"])
    tokenizer.chat_template = text
    return tokenizer


def refused(text: str | None, template: dict[str, Any] | None = None, dialogues: list[Any] | None = None) -> str:
    """The line that a template is refused with."""
    with pytest.raises(InputError) as found:
        check_template(tokenizer_with(text), DIALOGUES if dialogues is None else dialogues, template or {})
    assert "\n" not in str(found.value) and str(found.value).startswith("chat template: ")
    return str(found.value)


AS_THEY_ARE = (
    *("cohere", "cohere2", "gemma3", "gemma4", "gemma4_v2", "gemma4_v3", "gemma4_v5", "lfm2", "llama3", "llama3_1"),
    *("phi3", "phi3_5", "qwen2_5", "qwen3_5_nothink", "qwen3_instruct_2507"),
)
GOOD: dict[str, dict[str, Any]] = {
    **{name: {} for name in AS_THEY_ARE},
    **dict.fromkeys(("gemma4_v4", "nemotron_3_nano", "qwen3", "qwen3_5_think", "qwen3_8"), NO_THINKING),
    "llama3_2": PINNED,
}


@pytest.mark.parametrize("name", GOOD)
def test_a_shipped_template_passes_with_its_arguments(name: str):
    check_template(tokenizer_with(SHIPPED[name]), DIALOGUES, GOOD[name])


@pytest.mark.parametrize(
    ("name", "says"),
    [
        ("llama3_2", 'depends on the date; pin it in the model\'s file, e.g. template: {date_string: "26 Jul 2024"}'),
        ("muse_glimmer", 'e.g. template: {current_date: "26 Jul 2024"}'),
        ("gptoss", "depends on the date; no argument pins it; save the model as a folder and give it"),
        ("gemma", "takes no system text (System role not supported); save the model as a folder"),
        ("llava_next", "takes messages in parts only, as models that see do ('str object' has no attribute 'text')"),
        ("smolvlm", "takes messages in parts only, as models that see do (the text of system is lost or changed)"),
        ("glm4moe", "the answers A and B begin with the same token"),
        ("qwen3", "template: {enable_thinking: false}"),
        ("qwen3_8", "the prompt alone is not the beginning of prompt and answer (user, assistant)"),
        ("deepseekv3", "the prompt alone is not the beginning of prompt and answer (user, assistant)"),
    ],
)
def test_a_shipped_template_that_does_not_do_is_refused_in_one_line(name: str, says: str):
    assert says in refused(SHIPPED[name])


@pytest.mark.parametrize(
    ("text", "says"),
    [
        (None, "the tokenizer has none; name a model that was tuned for instructions"),
        ("{% for tool in tools %}{% endfor %}" + PLAIN, "does not take system, user, assistant ("),
        ("{{ raise_exception('no\\nway') }}", "does not take system, user, assistant (no way)"),
        ("{% for m in messages %}{% if", "does not take system, user, assistant ("),
        (PLAIN.replace("messages %}", "messages if m['role'] != 'system' %}"), "takes no system text (the text of sys"),
        (PLAIN.replace("]{{", "]<answer>{{"), "begin with the same token"),
        (PLAIN.replace("[assistant]", "[assistant]x"), "the prompt alone is not the beginning"),
        (PLAIN.replace("m['content']", "m['content'] * 2"), "not with letters that are tokens of their own"),
        ("{{ strftime_now('%Y') }}" + PLAIN, "depends on the date; no argument pins it"),
        ("{{ strftime_now(day_format or '%Y') }}" + PLAIN, "depends on the date"),
    ],
)
def test_a_bad_template_is_refused_in_one_line(text: str | None, says: str):
    assert says in refused(text)


def test_each_shape_of_rows_is_looked_at():
    """A template that fails on one shape only is found wherever a row of that shape stands."""
    good = (
        PLAIN
        + "{% if messages|selectattr('role', 'eq', 'user')|list|length > 1 %}{{ raise_exception('no') }}{% endif %}"
    )
    check_template(tokenizer_with(good), [DECISION, REPORTED, DECISION], {})
    assert "does not take system, user, assistant, user, assistant (no)" in refused(
        good, dialogues=[*[DECISION] * 50, FOLLOWED]
    )


@pytest.mark.parametrize("harm", ["{{ raise_exception('no') }}", "{{ (m | length) + '' }}", "{{ 1 // 0 }}"])
def test_a_row_that_a_template_refuses_for_its_words_is_numbered(harm: str):
    text = PLAIN.replace("[{{", f"{{% if 'taboo' in m['content'] %}}{harm}{{% endif %}}[{{{{", 1)
    taboo: Message = {"role": "assistant", "content": '{"taboo": 5}'}
    line = refused(text, dialogues=[DECISION, REPORTED, [SYSTEM, QUESTION, taboo]])
    assert line.endswith("(row 3)")


def test_the_letter_has_the_same_tokens_in_every_shape():
    """Else P(A) and P(B) would be read from other tokens than those taught."""
    text = PLAIN.replace("<|im_end|>", "<|im_end|>{{ '.' if messages[0]['role'] == 'system' }}")
    assert "the answer A has other tokens after system, user than" in refused(text, dialogues=[DECISION])


def test_the_date_is_found_also_where_only_a_system_text_brings_it():
    text = PLAIN.replace("]{{", "]{% if m['role'] == 'system' %}{{ strftime_now('%j') }}{% endif %}{{")
    letter_answers(tokenizer_with(text), {})
    assert "depends on the date" in refused(text, dialogues=[DECISION])


def test_tokens_are_those_of_the_template():
    tokenizer = tokenizer_with(PLAIN)
    assert tokenizer.decode(prompt_ids(tokenizer, [QUESTION], {})) == "[user]Which one?<|im_end|>[assistant]"
    assert tokenizer.decode(answer_ids(tokenizer, [QUESTION, REPORT], {})) == '{"price": -30}<|im_end|>'
    assert [tokenizer.decode([i]) for i in letter_ids(tokenizer, {})] == ["A", "B"]
