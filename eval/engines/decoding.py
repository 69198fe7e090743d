"""Greedy replies of a batch, within a grammar or free.

What a grammar leaves no choice about, such as the names in a report, is guessed ahead and computed in one pass with the
token before it. The guess is only the text; which tokens the model would spell it in is still read from its logits, and
where they differ from the guessed ones the guess is dropped. So replies are those of one token after another.

A vocabulary of whole words can spell itself into a corner: "pass" begins "passes", which the grammar asks for, and no
token goes on with "es". Such a reply is stuck; asked again as a dictated one, it takes every guess as it is.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import xgrammar
from torch import Tensor

from eval.engines.batches import Batch, in_columns


class Reply:
    """A reply as it grows: its tokens, and those that the grammar is guessed to go on with.

    Attributes:
        ended: Whether it is complete, or cannot go on.
        not_finite: Whether it ended because the scores of its next token are no numbers to choose by.
        stuck: Whether it ended because no token goes on with what the grammar asks for.
        dictated: Whether a guess is taken as it is, whatever the model would spell instead.
    """

    def __init__(
        self, grammar: xgrammar.CompiledGrammar | None, tokenizer: Any, stop_ids: Sequence[int], dictated: bool = False
    ) -> None:
        self.tokens: list[int] = []
        self.guess: list[int] = []
        self.ended = self.stuck = self.not_finite = False
        self.dictated = dictated
        self._tokenizer, self._stop_ids = tokenizer, stop_ids
        self._matcher = None if grammar is None else xgrammar.GrammarMatcher(grammar)

    def mask(self, bitmask: Tensor, row: int) -> None:
        """Leave in a row of the bitmask only the tokens that the grammar allows next."""
        if self._matcher is not None and not self.ended:
            self._matcher.fill_next_token_bitmask(bitmask, row)
            self.ended = self.stuck = not bool(bitmask[row].any())

    def add(self, token: int, limit: int) -> None:
        """Add the next token; a token that ends replies, the grammar's end or `limit` tokens end it."""
        if token in self._stop_ids:
            self.ended = True
            return
        self.tokens.append(token)
        if self._matcher is not None:
            self._matcher.accept_token(token)
        self.ended = len(self.tokens) == limit or (self._matcher is not None and self._matcher.is_completed())

    def look_ahead(self) -> None:
        """Guess the tokens of the text that must come next, in the spelling of the tokenizer."""
        self.guess = []
        if self._matcher is None or self.ended:
            return
        try:
            text = self._matcher.find_jump_forward_string()
        except UnicodeDecodeError:  # what comes next begins within a character
            return
        self.guess = self._tokenizer.encode(text, add_special_tokens=False)


def not_finite(scores: Tensor) -> Tensor:
    """Rows in which no probability of a next token is a finite number: a score is NaN or plus infinity, shape (rows,).

    Minus infinity is a token that cannot come, and leaves the others what they are.
    """
    return ~scores.amax(dim=-1).isfinite()


def greedy_replies(
    batch: Batch, prompts: Sequence[Sequence[int]], replies: Sequence[Reply], limit: int, ahead: bool
) -> None:
    """Let every reply, empty so far, grow to its end or to `limit` tokens.

    The batch has computed the beginnings of the prompts; `prompts` are the rest of each, at least one token. With
    `ahead`, what the grammar leaves no choice about is computed ahead.
    """
    fed = prompts
    while not all(reply.ended for reply in replies):
        if ahead:
            for reply in replies:
                reply.look_ahead()
        guesses = in_columns([reply.guess for reply in replies], left=False)
        block = [[*row, *guess] for row, guess in zip(in_columns(fed, left=True), guesses, strict=True)]
        logits = batch.feed(block, 1 + len(guesses[0]))
        _read(logits, replies, limit, batch)
        fed = [reply.tokens[-1:] if not reply.ended else [] for reply in replies]


def _read(logits: Tensor, replies: Sequence[Reply], limit: int, batch: Batch) -> None:
    """Add to each reply the tokens that the logits name, as far as they follow its guess, and one more."""
    bitmask = xgrammar.allocate_token_bitmask(len(replies), logits.shape[-1])
    going_on = [not reply.ended for reply in replies]
    right = [0] * len(replies)
    for column in range(logits.shape[1]):
        xgrammar.reset_token_bitmask(bitmask)
        for row, reply in enumerate(replies):
            if going_on[row]:
                reply.mask(bitmask, row)
        scores = logits[:, column].float().contiguous()
        broken = not_finite(scores).tolist()
        xgrammar.apply_token_bitmask_inplace(scores, bitmask.to(scores.device))
        for row, token in enumerate(scores.argmax(dim=-1).tolist()):
            reply = replies[row]
            if not going_on[row] or reply.ended:
                going_on[row] = False
                continue
            if broken[row]:
                reply.ended = reply.not_finite = True
                going_on[row] = False
                continue
            within = column < len(reply.guess)
            chosen = reply.guess[column] if within and reply.dictated else token
            reply.add(chosen, limit)
            guessed = within and reply.guess[column] == chosen
            right[row] += guessed
            going_on[row] = guessed and not reply.ended
        if not any(going_on):
            break
    batch.forget([len(reply.guess) - right[row] for row, reply in enumerate(replies)])
