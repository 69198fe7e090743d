"""A tokenizer of whole words and whole numbers, for a model too small to read anything in pieces."""

from __future__ import annotations

from collections.abc import Iterable

from tokenizers import AddedToken, Regex, Tokenizer, decoders, models, pre_tokenizers
from transformers import PreTrainedTokenizerFast

PAD, END, UNKNOWN = "<|pad|>", "<|end|>", "<|unknown|>"
ROLES = ("<|system|>", "<|user|>", "<|assistant|>")

NUMBERS = range(-100, 101)
"""Each is one token: a rating of 0 to 100 in a prompt, a weight of -100 to 100 in a report."""

GLUE = ("\n- ", ": A ", ", B ", '{"', '": ', ', "')
"""What stands around names and numbers in a prompt and in a report; one token each."""

PIECES = r"[\p{L}\p{M}'\x{2019}]+ ?|-?\d+ ?|[^\p{L}\d]"
"""A word or a number with the space after it, or any other single character. So a name is the same tokens after the
dash of a prompt and after the quotation mark of a report."""

CHAT_TEMPLATE = (
    "{% for m in messages %}{{ '<|' + m['role'] + '|>' + m['content'] + '<|end|>' }}{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|assistant|>' }}{% endif %}"
)


def build_tokenizer(sentences: Iterable[str], texts: Iterable[str]) -> PreTrainedTokenizerFast:
    """A tokenizer that reads the given texts without an unknown token.

    Args:
        sentences: Fixed sentences, such as instructions; each becomes one token, which saves the model reading them.
        texts: What else must be readable: its words (with and without the space after them) become tokens.
    """
    special = [PAD, END, *ROLES, UNKNOWN]
    fixed = [*dict.fromkeys([*sentences, *GLUE])]
    splitter = pre_tokenizers.Split(Regex(PIECES), "isolated")
    pieces = {piece.rstrip(" ") or " " for text in texts for piece, _ in splitter.pre_tokenize_str(text)}
    words = sorted(pieces - {str(number) for number in NUMBERS})
    spaced = [f"{word} " for word in words if word[0].isalpha()]
    vocabulary = dict.fromkeys([*special, *fixed, *(str(n) for n in NUMBERS), "A", "B", *words, *spaced])
    tokenizer = Tokenizer(models.WordLevel({piece: i for i, piece in enumerate(vocabulary)}, unk_token=UNKNOWN))
    tokenizer.pre_tokenizer = splitter
    tokenizer.decoder = decoders.Fuse()
    tokenizer.add_special_tokens([AddedToken(token, special=True, normalized=False) for token in special])
    tokenizer.add_tokens([AddedToken(text, normalized=False) for text in fixed])
    fast = PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, pad_token=PAD, eos_token=END, unk_token=UNKNOWN, clean_up_tokenization_spaces=False
    )
    fast.chat_template = CHAT_TEMPLATE
    return fast
