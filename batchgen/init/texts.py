"""Rows whose prompt is made of texts in columns, and of a picture."""

from __future__ import annotations

import re
from collections.abc import Collection

from batchgen.errors import InputError, Problem, listed
from batchgen.init.names import expression, label
from batchgen.init.options import InitOptions
from batchgen.init.shape import Shape
from batchgen.init.survey import Column, Survey
from batchgen.requests.faults import RequestError, TemplateError
from batchgen.requests.uploads import Pictures

# Headers of the column that is the whole prompt, the likeliest first.
_PROMPTS = (
    r"prompt|user[ _-]prompt|input[ _-]prompt|prompt[ _-]text",
    r"instruction|question|query|problem|task|request|utterance|goal"
    r"|user[ _-](input|message|question|query)",
    r"(question|input|instruction|query|message)[ _-](text|body|content|en|english)",
    r"text|message|input|content|body|user|frage|pregunta|вопрос|问题|質問",
)
# The first of these may have a text below them that they are about.
_ABOUT = _PROMPTS[:3]
_CONTEXTS = r"input|context|passage|document|article"
_SYSTEM = r"system([ _-](prompt|message|instruction))?"
# Headers of what a model has answered, or should; and of what a person may have answered, too.
_OUTPUTS = r"(.*[ _-])?(output|completion|expected|target|label|chosen|rejected|ideal|gold)s?\d*"
_ANSWERS = r"(.*[ _-])?(response|answer|reply|replie|reference|solution|ground[ _-]truth)s?\d*"
# Columns that are shown on a line each; a file may have hundreds.
_MOST_LINES = 12
# Kinds of requests that have a system message.
_WITH_SYSTEM = (None, "chat", "text")


def is_answer(name: str) -> bool:
    """Whether a column's header says that it holds answers."""
    return bool(re.fullmatch(f"{_OUTPUTS}|{_ANSWERS}", name.lower()))


def prompt_column(survey: Survey) -> Column | None:
    """The column that is the whole prompt by its header, if it is mostly filled."""
    columns = (_named(survey, pattern) for pattern in _PROMPTS)
    return next((column for column in columns if column is not None), None)


def is_results_table(survey: Survey) -> bool:
    """Whether the file is a table that batchgen wrote."""
    return survey.columns.keys() >= {"status", "output", "answered_by", "finish_reason", "run"}


def text_of(survey: Survey, options: InitOptions, identity: Collection[str]) -> Shape:
    """A prompt out of columns; `identity` are those that only name a row.

    Raises InputError when no column can be a prompt.
    """
    picture, unsure = _picture(survey, options)
    system = _named(survey, _SYSTEM) if options.kind in _WITH_SYSTEM else None
    if system is not None and system.filled < survey.rows:
        unsure.append(f"{system.name} is not filled in every row: it is not the system message")
        system = None
    columns = [survey.columns[name] for name in options.prompt]
    whole = None if columns else prompt_column(survey)
    if not columns and is_results_table(survey):
        columns = [survey.columns["output"]]
        lines = _lines(survey, columns)
        found = "output, because this is a results table of batchgen: its answers go on"
    elif whole is not None:
        columns, lines, found = _whole(survey, whole)
    else:
        columns = columns or _showing(survey, {*identity, *_names(picture, system)})
        lines = _lines(survey, columns)
        found = listed([each.name for each in columns])
        found += ", a line for each" if len(columns) > 1 else ""
    if not lines and picture is not None:
        lines, found = ["Describe this picture."], f"the picture in {picture.name}"
    if not lines:
        raise InputError([Problem(path=str(survey.path), message=_no_prompt(survey))])
    if picture is not None and columns:
        found += f", with the picture in {picture.name}"
    if system is not None:
        found += f"; {system.name} is the system message"
    return Shape(
        found=found,
        columns=tuple(each.name for each in columns),
        lines=tuple(lines),
        system=system.name if system else None,
        picture=picture,
        unsure=tuple(unsure),
    )


def _no_prompt(survey: Survey) -> str:
    if not any(map(survey.in_every_row, survey.columns)):
        return "the rows have no column in common; give them one"
    return "no column can be a prompt; name one with --prompt COLUMN"


def _names(*columns: Column | None) -> list[str]:
    return [column.name for column in columns if column is not None]


def _value(survey: Survey, column: Column) -> str:
    return expression(column.name, always=survey.in_every_row(column.name))


def _named(survey: Survey, pattern: str) -> Column | None:
    """The first column with such a header that holds texts and is mostly filled."""
    return next(
        (
            column
            for column in survey.columns.values()
            if re.fullmatch(pattern, column.name.lower())
            and column.all("text")
            and survey.mostly_filled(column)
        ),
        None,
    )


def _whole(survey: Survey, whole: Column) -> tuple[list[Column], list[str], str]:
    """The columns, the lines and the words for a prompt that is one column, by its header.

    An instruction or a question may be about a text in another column.
    """
    lines = [f"{{{{ {_value(survey, whole)} }}}}"]
    if any(re.fullmatch(pattern, whole.name.lower()) for pattern in _ABOUT):
        for column in survey.columns.values():
            about = re.fullmatch(_CONTEXTS, column.name.lower()) and column.all("text")
            if about and column is not whole:
                value = _value(survey, column)
                lines = [f"{lines[0]}{{% if {value} %}}", "", f"{{{{ {value} }}}}{{% endif %}}"]
                return [whole, column], lines, f"{whole.name}, and {column.name} where it is filled"
    return [whole], lines, f"{whole.name}, by its name"


def _lines(survey: Survey, columns: list[Column]) -> list[str]:
    if len(columns) == 1:
        return [f"{{{{ {_value(survey, columns[0])} }}}}"]
    return [f"{label(each.name)}: {{{{ {_value(survey, each)} }}}}" for each in columns]


def _showing(survey: Survey, others: Collection[str]) -> list[Column]:
    """The columns that a prompt can show: filled, no answers, no pictures, not promptfoo's own.

    `others` have another use; they are shown where nothing else is.
    """
    usable = [
        column
        for column in survey.columns.values()
        if column.filled
        and not column.name.startswith("__")
        and survey.in_every_row(column.name)
        and not (column.kinds["picture"] or column.kinds["picture_url"])
    ]
    shown = [
        column
        for column in usable
        if column.name not in others and not re.fullmatch(_OUTPUTS, column.name.lower())
    ]
    fullest = sorted(shown, key=lambda each: -each.filled)[:_MOST_LINES]
    return [column for column in shown if column in fullest] or usable[:_MOST_LINES]


def _picture(survey: Survey, options: InitOptions) -> tuple[Column | None, list[str]]:
    """The column of pictures that a request shows or edits, and why others are not used."""
    unsure: list[str] = []
    for column in survey.columns.values():
        paths, urls = column.all("picture"), column.all("picture_url")
        if column.all("pdf"):
            unsure.append(
                f"{column.name} names PDFs, and only the names are sent; "
                f"{expression(column.name)} | data_url sends the files (docs/templates.md)"
            )
        if not (paths or urls) or options.kind not in (None, "chat", "image_edit"):
            continue
        if column.filled < survey.rows:
            unsure.append(f"{column.name} names pictures, but not in every row: not sent")
        elif urls and options.kind != "image_edit":
            return column, unsure
        elif urls:
            unsure.append(f"{column.name} holds URLs, and an edit needs files: not sent")
        elif (why := _unusable(survey, column)) is None:
            return column, unsure
        else:
            unsure.append(f"{column.name} names pictures that cannot be read ({why}): not sent")
    return None, unsure


def _unusable(survey: Survey, column: Column) -> str | None:
    """Why the first picture that cannot be sent cannot, or None."""
    pictures = Pictures(survey.path.parent.resolve())
    for row in survey:
        try:
            pictures.data_url(row[column.name])
        except (RequestError, TemplateError) as error:
            return str(error)
    return None
