"""Rows of training examples: what is written comes back, and a row that cannot be trained on is named."""

import gzip
import json
from pathlib import Path

import pytest

from store.examples import ChatMessage, Example, read_examples, write_examples
from task.errors import InputError


def test_rows_come_back_and_are_plain_json_lines(tmp_path: Path):
    prompt = [ChatMessage(role="system", content="Sé breve."), ChatMessage(role="user", content="A or B?")]
    rows = [
        Example(messages=[*prompt, ChatMessage(role="assistant", content="A")], context="bees", index=3),
        Example(messages=[*prompt, ChatMessage(role="assistant", content='{"size": 5}')], context="boats", index=0),
    ]
    assert write_examples(tmp_path / "train.jsonl", rows) == 2
    assert read_examples(tmp_path / "train.jsonl") == rows
    first = (tmp_path / "train.jsonl").read_text(encoding="utf-8").splitlines()[0]
    assert list(json.loads(first)) == ["messages", "context", "index"] and "Sé breve." in first


def test_rows_of_other_origin_need_messages_only(tmp_path: Path):
    path = tmp_path / "rows.jsonl"
    messages = [{"role": "user", "content": "A or B?", "name": "me"}, {"role": "assistant", "content": "B"}]
    path.write_text(json.dumps({"messages": messages, "split": "train"}))
    [row] = read_examples(path)
    assert (row.context, row.index, row.messages[-1].content) == ("", None, "B")


def row(**answer: object) -> str:
    """A row whose answer says something else."""
    said = {"role": "assistant", "content": "A", **answer}
    return json.dumps({"messages": [{"role": "user", "content": "A or B?"}, said]})


@pytest.mark.parametrize(
    ("line", "says"),
    [
        ("{", ":1: not JSON"),
        ('{"messages": []}', ":1: messages: "),
        ('{"prompt": "x"}', ":1: messages: Field required"),
        ('{"messages": [{"role": "user", "content": "x"}, {"role": "assistant"}]}', ":1: messages.1.content: "),
        ('{"messages": [{"role": "assistant", "content": "x"}, {"role": "user", "content": "x"}]}', "is by 'user'"),
        ("", "no rows"),
        ("\n \n", "no rows"),
        ("5", ":1: "),
        ('{"messages": [], "messages": []}', ":1: not JSON .*'messages' is given twice"),
        ('{"messages": NaN}', ":1: not JSON .*NaN"),
        ("\n" + row(content=None), r":2: messages\.1\.content: "),
        (row(content=[{"type": "text", "text": "A"}]), r":1: messages\.1\.content: "),
        (row(content=5), r":1: messages\.1\.content: "),
        (row(content="\ud800"), ":1: not JSON .*surrogate"),
        (row(role=None), r":1: messages\.1\.role: "),
        (row(role="tool"), r":1: messages\.1\.role: .*given: 'tool'"),
        (row().replace('"role": "assistant", ', ""), r":1: messages\.1\.role: Field required"),
    ],
)
def test_rows_that_cannot_be_trained_on(tmp_path: Path, line: str, says: str):
    path = tmp_path / "rows.jsonl"
    path.write_text(line)
    with pytest.raises(InputError, match=says):
        read_examples(path)


@pytest.mark.parametrize(
    ("content", "says"),
    [
        (gzip.compress(row().encode(), mtime=0), "gzip"),
        (row().encode("utf-16"), "UTF-16"),
        (f"{row()}\n{row(content='é')}".encode("latin-1").replace(b"\\u00e9", b"\xe9"), ":2: not UTF-8 text"),
    ],
)
def test_rows_in_another_encoding_are_named(tmp_path: Path, content: bytes, says: str):
    path = tmp_path / "rows.jsonl"
    path.write_bytes(content)
    with pytest.raises(InputError, match=says):
        read_examples(path)


def test_blank_lines_and_a_byte_order_mark_do_not_count(tmp_path: Path):
    path = tmp_path / "rows.jsonl"
    path.write_text(f"{row()}\n\n{row(content='B')}\n  \n", encoding="utf-8-sig")
    assert [example.messages[-1].content for example in read_examples(path)] == ["A", "B"]


def test_a_row_teaches_a_decision_where_its_answer_is_a_letter():
    prompt = ChatMessage(role="user", content="A or B?")
    answers = {"A": "decisions", " B": "decisions", '{"A": 5}': "reports", "Because": "reports", "C": "reports"}
    for answer, measure in answers.items():
        row = Example(messages=[prompt, ChatMessage(role="assistant", content=answer)])
        assert row.measure == measure, answer


@pytest.mark.parametrize(("weight", "refused"), [(1, False), (1.0, False), (0, True), (0.5, True), (None, False)])
@pytest.mark.parametrize("inside", [False, True], ids=["row", "message"])
def test_a_weight_that_is_not_honoured_is_refused_by_line(
    tmp_path: Path, weight: float | None, refused: bool, inside: bool
):
    """OpenAI's fine-tuning format leaves messages of weight 0 out of the loss."""
    more = {"weight": weight}
    answer = {"role": "assistant", "content": "B", **(more if inside else {})}
    row = {"messages": [{"role": "user", "content": "A or B?"}, answer], **({} if inside else more)}
    path = tmp_path / "rows.jsonl"
    plain = {"messages": [row["messages"][0], {"role": "assistant", "content": "A"}]}
    path.write_text(f"{json.dumps(plain)}\n{json.dumps(row)}\n")
    if not refused:
        assert len(read_examples(path)) == 2
        return
    where = "messages.1: " if inside else ""
    with pytest.raises(InputError, match=f":2: {where}weight {weight} is not honoured"):
        read_examples(path)
