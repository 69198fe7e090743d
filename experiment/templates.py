"""Whether the model's chat template does what an experiment asks of it, found before the first stage."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

from experiment.plan import Run
from store.model_file import ModelFile
from store.paths import project_file
from store.pretrained import load_tokenizer
from store.wordings import read_wordings
from task.chat import check_template
from task.prompts import DEFAULT, Measure, Message, Variant, decision_answer, frame, report_answer


def chat_template_line(run: Run) -> str:
    """Check the chat template on each kind of prompt that a run trains or measures; what was checked, in words.

    Raises:
        InputError: The template does not do; see `task.chat.check_template`.
    """
    if run.model is None:
        return "chat template: none needed, as no model runs"
    if (tokenizer := tokenizer_at_hand(run.model)) is None:
        return (
            f"chat template: not checked, as no tokenizer of {run.model.name} is here yet; training and evaluation "
            "check it when they begin"
        )
    check_template(tokenizer, dialogues(run), run.model.template)
    return "chat template: checked on every kind of prompt"


def tokenizer_at_hand(model: ModelFile) -> Any | None:
    """The model's tokenizer from its folder, or from the Hub's cache; None where neither has it. Fetches nothing."""
    folder = project_file(model.name)
    if not folder.is_dir():
        from huggingface_hub import try_to_load_from_cache
        from huggingface_hub.errors import HFValidationError

        try:
            cached = try_to_load_from_cache(model.name, "tokenizer.json", revision=model.revision)
        except HFValidationError:  # a path, not a name on the Hub
            return None
        folder = Path(cached).parent if isinstance(cached, str) else folder
    if not (folder / "tokenizer.json").is_file():
        return None
    return load_tokenizer(folder)


def dialogues(run: Run) -> Iterator[list[Message]]:
    """A prompt with an answer of each (measure, variant) that a run trains or measures."""
    experiment = run.experiment
    [first, *_] = experiment.target_contexts
    asked: dict[tuple[Measure, Variant], str] = {("decisions", DEFAULT["decisions"]): first}
    for training in experiment.trainings.values():
        for variant in (training.variant, training.flip_under or training.variant):
            asked.setdefault((training.teach, variant), training.contexts)
    for wanted in experiment.measurements:
        asked.setdefault((wanted.measure, wanted.variant), first)
    wordings = read_wordings(experiment.wording)
    for (measure, variant), group in asked.items():
        context = run.groups[group][0]
        weights = [-50.0] * len(context.attributes)
        framing = frame(measure, context, variant, told=weights, chose="A", wordings=wordings)
        answer = decision_answer(True) if measure == "decisions" else report_answer(context, weights)
        yield [*framing.messages(context.lows, context.lows), {"role": "assistant", "content": answer}]
