"""Let a model answer ordinary questions in its own words, so that a warm-up can keep it near them.

    python -m train.curriculum.own_words --model models/smollm2-135m-instruct \\
        --output models/smollm2-135m-own-words

Every fifth text is held out of the warm-up and measures it (`train.curriculum.language`). Killed and started again, it
goes on after the last batch.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from store.console import Progress, run_command, say
from store.files import write_text
from store.locks import held
from store.manifests import OutputFacts
from store.models import fingerprint, model_folder
from store.pretrained import device_at_hand, load_causal_model, load_tokenizer
from store.stages import Stage
from store.texts import parse_json, read_lines
from task.chat import ChatTokenizer, answer_ids, prompt_ids
from task.errors import InputError
from task.prompts import Message
from train.curriculum.course import SEEDS, check_option
from train.curriculum.questions import INSTRUCTIONS, SUBJECTS, questions

TEXTS = "own_words.jsonl"
"""File with a text a line: `messages`, and whether its answer is `whole` or was cut off."""

HELD_OUT = 5
"""Every so many-th text is held out."""


@dataclass(frozen=True)
class OwnWords:
    """A question with the model's own answer; `whole` says whether the model ended it."""

    messages: list[Message]
    whole: bool

    def tokens(self, tokenizer: ChatTokenizer) -> tuple[list[int], list[int]]:
        """Token ids of the question, and of the answer; what ends it is among them only where the model ended it."""
        question, answer = prompt_ids(tokenizer, self.messages[:-1], {}), answer_ids(tokenizer, self.messages, {})
        return question, answer if self.whole else answer[: -ending(tokenizer)]


def main() -> None:
    """Command line: `--model M --output FOLDER [--texts N] [--tokens T] [--temperature T] [--batch B] [--seed S]`."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", required=True, help="a model folder, or a model's name on the Hub")
    parser.add_argument("--revision")
    parser.add_argument("--output", type=Path, required=True, help="folder for the texts")
    parser.add_argument("--texts", type=int, default=320)
    parser.add_argument("--tokens", type=int, default=96, help="at most so many an answer")
    parser.add_argument("--temperature", type=float, default=0.8)
    parser.add_argument("--batch", type=int, default=32, help="answers sampled together")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--overwrite", action="store_true", help="redo it where an earlier result differs")
    arguments = parser.parse_args()
    check(arguments)
    base = model_folder(arguments.model, arguments.revision)
    settings = {key: getattr(arguments, key) for key in ("texts", "tokens", "temperature", "batch", "seed")}
    with held(arguments.output):
        stage = Stage(arguments.output, {"base": fingerprint(base), **settings}, arguments.overwrite)
        if stage.finished:
            say(f"{arguments.output}: finished before, nothing to do")
            return
        sample(base, arguments.output / TEXTS, **settings)
        stage.finish(OutputFacts(files=[TEXTS]))
    say(f"{arguments.output / TEXTS}: {arguments.texts} texts")


def check(arguments: argparse.Namespace) -> None:
    """Refuse what nothing can be sampled with, before a model is loaded.

    Raises:
        InputError: Names the option, the value and what is possible.
    """
    check_option("seed", arguments.seed, 0, SEEDS)
    check_option("texts", arguments.texts, HELD_OUT, len(INSTRUCTIONS) * len(SUBJECTS))
    check_option("tokens", arguments.tokens, 1, 10_000)
    check_option("temperature", arguments.temperature, 0.01, 1)
    check_option("batch", arguments.batch, 1, 10_000)


def sample(base: Path, file: Path, texts: int, tokens: int, temperature: float, batch: int, seed: int) -> None:
    """Write the texts to a file, or what it lacks of them; each batch is a function of (seed, its place)."""
    done = file.read_text(encoding="utf-8").splitlines() if file.exists() else []
    tokenizer, model = load_tokenizer(base), load_causal_model(base, dtype=torch.float32).eval()
    model = model.to(device_at_hand())
    prompts = questions(texts, seed)
    with Progress(texts, "texts") as progress:
        progress.found(len(done))
        for start in range(len(done), texts, batch):
            torch.manual_seed(seed + start)
            asked = prompts[start : start + batch]
            found = answers(model, tokenizer, asked, tokens, temperature)
            done += [json.dumps(asdict(text), ensure_ascii=False) for text in found]
            write_text(file, "".join(f"{line}\n" for line in done))
            progress.advance(len(asked))


@torch.inference_mode()
def answers(
    model: Any, tokenizer: Any, prompts: Sequence[list[Message]], tokens: int, temperature: float | None
) -> list[OwnWords]:
    """Sampled answers to prompts, or greedy ones without a temperature, at most so many tokens each."""
    rows = [prompt_ids(tokenizer, prompt, {}) for prompt in prompts]
    longest = max(map(len, rows))
    end = end_id(tokenizer)
    ids = torch.tensor([[end] * (longest - len(row)) + row for row in rows])
    mask = torch.tensor([[0] * (longest - len(row)) + [1] * len(row) for row in rows])
    sampled: Tensor = model.generate(
        input_ids=ids.to(model.device),
        attention_mask=mask.to(model.device),
        max_new_tokens=tokens,
        **({"do_sample": False} if temperature is None else _sampling(temperature)),
        eos_token_id=end,
        pad_token_id=end,
    )
    return [_read(tokenizer, p, row, end) for p, row in zip(prompts, sampled[:, longest:].tolist(), strict=True)]


def _sampling(temperature: float) -> dict[str, Any]:
    """Arguments that sample from the whole distribution."""
    return {"do_sample": True, "temperature": temperature, "top_k": 0, "top_p": 1.0}


def _read(tokenizer: Any, prompt: list[Message], row: list[int], end: int) -> OwnWords:
    whole = end in row
    text = tokenizer.decode(row[: row.index(end)] if whole else row, skip_special_tokens=True)
    return OwnWords([*prompt, {"role": "assistant", "content": text.strip()}], whole)


def ending(tokenizer: ChatTokenizer) -> int:
    """Tokens that a chat template writes after an answer."""
    return len(answer_ids(tokenizer, [{"role": "user", "content": "A?"}, {"role": "assistant", "content": ""}], {}))


def end_id(tokenizer: ChatTokenizer) -> int:
    """The token that ends an answer: the first that the chat template writes after it."""
    nothing: list[Message] = [{"role": "user", "content": "A?"}, {"role": "assistant", "content": ""}]
    return answer_ids(tokenizer, nothing, {})[0]


def load_own_words(folder: Path, held_out: bool) -> list[OwnWords]:
    """The texts of a folder that are held out, or the others.

    Raises:
        InputError: There are none, or a line is none of this module's.
    """
    file, remedy = folder / TEXTS, "make it with: python -m train.curriculum.own_words"
    if not file.is_file():
        raise InputError(f"{file}: no such file; {remedy}")
    found = []
    for number, (place, line) in enumerate(read_lines(file).items()):
        value = parse_json(line, place, remedy) if isinstance(line, str) else line
        try:
            text = OwnWords(value["messages"], value["whole"])
        except (TypeError, KeyError):
            raise InputError(f"{place}: no messages and whole; {remedy}") from None
        if (number % HELD_OUT == 0) == held_out:
            found.append(text)
    return found


if __name__ == "__main__":
    run_command(main)
