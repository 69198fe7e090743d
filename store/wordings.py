"""Wording files: YAML with the words and the layout of both measures' prompts, in place of the default ones."""

from __future__ import annotations

from pathlib import Path

from pydantic import Field, ValidationInfo, field_validator

from store.paths import project_file
from store.settings import WrittenSettings, read_settings
from store.yaml_files import dump_yaml
from task.prompts import DEFAULT, Numbers, Wording, Wordings

PLACES = {
    "scene": {"agent": "a person", "question": "Which?"},
    "heading": {"letter": "A"},
    "line": {"name": "price", "value": "3 euros"},
}
"""What each text of a wording is filled with, all of it, in braces: `{agent}`."""


class WordingText(WrittenSettings):
    """The words and the layout of one measure, see `task.prompts.Wording`."""

    system: str
    instruction: str
    scene: str
    heading: str
    line: str
    numbers: Numbers
    lines_before_scene: int = Field(ge=0, le=100)
    lines_before_options: int = Field(ge=0, le=100)
    lines_between_options: int = Field(ge=0, le=100)

    @field_validator(*PLACES)
    @classmethod
    def _check_places(cls, text: str, info: ValidationInfo) -> str:
        places = PLACES[str(info.field_name)]
        try:
            text.format(**places)
        except (LookupError, ValueError, AttributeError) as error:
            raise ValueError(f"{error} cannot be filled in; write a brace of the text itself twice") from None
        if missing := [name for name in places if f"{{{name}}}" not in text]:
            raise ValueError(f"{{{missing[0]}}} is missing; it is filled in there")
        return text


class WordingFile(WrittenSettings):
    """A wording file: both measures, so that a model is asked about its decisions in the words that they were in."""

    decisions: WordingText
    reports: WordingText

    @property
    def wordings(self) -> Wordings:
        """The words of the default variants."""
        return {
            "decisions": Wording("decisions", DEFAULT["decisions"], **self.decisions.model_dump()),
            "reports": Wording("reports", DEFAULT["reports"], **self.reports.model_dump()),
        }


def read_wordings(path: Path | str | None) -> Wordings | None:
    """The words of a file; None, which stands for our own, where none is named.

    Raises:
        InputError: No such file, a missing or unknown key, or a text without the place of what is filled in.
    """
    return None if path is None else read_settings(project_file(path), WordingFile).wordings


def dump_wordings(file: WordingFile) -> str:
    """The text of a wording file."""
    return dump_yaml(file.model_dump())
