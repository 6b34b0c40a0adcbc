"""Where the command prints: text as it is, on any terminal.

Names, paths and values come from people and from run folders of strangers. A console of rich would take `[red]` in them for
markup and `:smile:` for a face, so here it does neither; what we colour ourselves is a `Text`. A terminal or a pipe that
cannot show a character shows `?` in its place.
"""

import io
import sys

from rich.console import Console
from rich.text import Text


def terminal(*, stderr: bool = False) -> Console:
    """A console on standard output, or on standard error."""
    return Console(stderr=stderr, markup=False, emoji=False)


def warning(text: str, mark: str = "warning:") -> Text:
    """A sentence that a person should mind."""
    return Text.assemble((mark, "yellow"), f" {text}")


def replace_what_cannot_be_shown() -> None:
    """Make standard output and standard error print `?` for characters that their encoding lacks, instead of raising."""
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="replace")
