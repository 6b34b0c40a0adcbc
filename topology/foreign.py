"""Files that others have written: read whole up to a size, and errors about them on one short line."""

import math
from numbers import Real
from pathlib import Path

SHOWN = 40  # characters of foreign text that an error or a note quotes


class UnreadableError(Exception):
    """A file that is not what its format says; the text is the rest of a sentence that begins with the file's name."""


def bytes_of(path: Path, most: int) -> bytes:
    """The content of a regular file of at most so many bytes.

    Raises:
        UnreadableError: there is none, it is larger, or cannot be read.
    """
    try:
        if not path.exists():
            raise UnreadableError("does not exist")
        if not path.is_file():
            raise UnreadableError("is not a regular file")
        size = path.stat().st_size
        if size > most:
            raise UnreadableError(f"has {size} bytes, expected at most {most}")
        return path.read_bytes()
    except (OSError, ValueError) as error:  # ValueError: a path with a NUL
        raise UnreadableError(f"cannot be read: {told(error)}") from None


def number(value: object) -> float | None:
    """The number that an attribute holds; None: it holds none.

    Example:
        >>> number("12.5"), number(3), number(True), number("10 Gbps"), number("nan")
        (12.5, 3.0, None, None, None)
    """
    if isinstance(value, bool) or not isinstance(value, str | Real):
        return None
    try:
        found = float(value)
    except (ValueError, OverflowError):
        return None
    return found if math.isfinite(found) else None


def text_of(data: bytes) -> str:
    """The text of a file.

    Raises:
        UnreadableError: it is not UTF-8.
    """
    try:
        return data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise UnreadableError(f"is not UTF-8 text (byte {error.start})") from None


def quoted(value: object) -> str:
    """Foreign text in an error: quoted, on one line, and not long."""
    try:
        text = repr(value)
    except ValueError:
        text = f"a {type(value).__name__}"
    return text if len(text) <= SHOWN else text[: SHOWN - 3] + "..."


def told(error: BaseException) -> str:
    """The text of a library's error, on one line and not long."""
    text = " ".join(str(error).split())
    return text if len(text) <= 2 * SHOWN else text[: 2 * SHOWN - 3] + "..."
