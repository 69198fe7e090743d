"""Ordinary questions and instructions, put together from lists of ours: what a model answers in its own words."""

from __future__ import annotations

from itertools import product

from task.prompts import SYSTEM, Message
from task.seeding import stream

UNDER_OURS = 3
"""Every so many-th question stands under the system prompt of decisions, since language is to be kept there as well.
The others have none, and a chat template puts in its own."""

SUBJECTS = (
    *(
        "a lighthouse",
        "baking bread",
        "the tides",
        "an old bicycle",
        "house cats",
        "rain in a city",
        "growing tomatoes",
    ),
    *("a railway station", "learning to swim", "honey bees", "a lost umbrella", "winter coats", "public libraries"),
    *("the moon", "a noisy neighbour", "paper maps", "a market on Saturday", "drinking enough water", "wooden chairs"),
    *("a long walk", "sharing a kitchen", "volcanoes", "a broken clock", "saving money", "playing the piano", "foxes"),
    *("a village school", "telephones", "early mornings", "a snowed-in train", "repairing shoes", "the sea in autumn"),
)

INSTRUCTIONS = (
    "Explain {subject} to a child of eight.",
    "Write a short story about {subject}.",
    "Tell me three facts about {subject}.",
    "Write a friendly e-mail to a colleague about {subject}.",
    "What do most people get wrong about {subject}?",
    "Give me five words that have to do with {subject}, separated by commas.",
    "Write two sentences that praise {subject}, and one that complains.",
    "Ask me a question about {subject}, then answer it yourself.",
    "Write a poem of four lines on {subject}.",
    "How would a scientist describe {subject}?",
    "I have to give a talk on {subject}. How should I begin?",
    "Describe {subject} as a list with three points.",
    "Write a conversation between two friends about {subject}.",
    "Why might somebody write a book about {subject}?",
    'Write a JSON object with the keys "title", "year" and "pages" for an invented book about {subject}.',
    'Write a JSON object that gives a mark from 0 to 10 for "beauty", "use" and "price" of {subject}.',
    "Is there anything to be said against {subject}?",
    "What is the history of {subject}? Be brief.",
)


def questions(number: int, seed: int) -> list[list[Message]]:
    """Different prompts, `number` of them, in an order by chance: a longer list begins with the shorter one.

    Raises:
        ValueError: More are asked for than there are.
    """
    pairs = list(product(INSTRUCTIONS, SUBJECTS))
    if number > len(pairs):
        raise ValueError(f"{number} questions asked for, there are {len(pairs)}")
    order = stream(seed, "questions").permutation(len(pairs))[:number]
    texts = [instruction.format(subject=subject) for instruction, subject in (pairs[i] for i in order)]
    return [_prompt(text, ours=place % UNDER_OURS == 0) for place, text in enumerate(texts)]


def _prompt(text: str, ours: bool) -> list[Message]:
    asked: Message = {"role": "user", "content": text}
    return [{"role": "system", "content": SYSTEM}, asked] if ours else [asked]
