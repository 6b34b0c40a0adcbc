"""Text files with a row per line: how comments, separators, quotes and first lines with names are read."""

import csv
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from topology.foreign import UnreadableError, quoted, text_of

_COMMENT = re.compile(r"^\s*[#%].*|\s#.*")
_WORD = re.compile(r'"([^"]*)"|([^\s,;|]+)')
_SEPARATORS = "\t,;|"


@dataclass(frozen=True, slots=True)
class Line:
    """A row of a file: its number, its text without comments, its fields."""

    number: int
    text: str
    fields: tuple[str, ...]


def read_lines(data: bytes) -> list[Line]:
    """The rows of a file, without comments and empty lines.

    A tab, comma, semicolon or bar that is in every row separates its fields; otherwise all of these and blanks do. A field may
    stand in double quotes.

    Raises:
        UnreadableError: the file is not UTF-8, or quotes are not closed.
    """
    kept = [
        (number, text)
        for number, raw in enumerate(text_of(data).splitlines(), start=1)
        if (text := _COMMENT.sub("", raw)).strip()
    ]
    separator = next((mark for mark in _SEPARATORS if kept and all(mark in text for _, text in kept)), None)
    return [Line(number, text, tuple(_fields(number, text, separator))) for number, text in kept]


def _fields(number: int, text: str, separator: str | None) -> Iterator[str]:
    if separator is None:
        yield from (quoted_ or plain for quoted_, plain in _WORD.findall(text))
        return
    try:
        (row,) = csv.reader([text], delimiter=separator, skipinitialspace=True, strict=True)
    except (csv.Error, ValueError):
        raise UnreadableError(f"line {number}: got {quoted(text)}, expected fields separated by {separator!r}") from None
    yield from (field.strip() for field in row)


def columns(header: Sequence[str], *aliases: Sequence[str]) -> list[int] | None:
    """Where the columns are that a first line names; None where it does not name them all.

    Args:
        header: Fields of the first line.
        aliases: For each column the names that it may have, in lower case.

    Example:
        >>> columns(["Target", "dist", "Source"], ("source", "from"), ("target", "to"))
        [2, 0]
    """
    folded = [field.casefold() for field in header]
    found = [next((folded.index(name) for name in names if name in folded), None) for names in aliases]
    return None if None in found else [place for place in found if place is not None]
