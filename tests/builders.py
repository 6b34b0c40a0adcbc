"""What many tests build: learners' sizes, and a console that can be read."""

import io
from typing import TYPE_CHECKING, Any

from rich.console import Console

if TYPE_CHECKING:
    from node.numerics.critics import Shape


class Screen:
    """A console as `coordinator.cli.terminal` makes them, and what is on it."""

    def __init__(self, *, is_terminal: bool = False, width: int = 200) -> None:
        self._file = io.StringIO()
        self.console = Console(
            file=self._file, width=width, height=50, force_terminal=is_terminal, color_system=None, markup=False, emoji=False
        )

    @property
    def text(self) -> str:
        """All that has been printed."""
        return self._file.getvalue()

    @property
    def lines(self) -> list[str]:
        """The same by line, without blanks at their ends."""
        return [line.rstrip() for line in self.text.splitlines()]


def printed(table: Any, width: int = 200) -> str:
    """A table as the command prints it."""
    screen = Screen(width=width)
    screen.console.print(table)
    return screen.text


def cells_of(table: Any) -> list[list[str]]:
    """The words of a table, line by line, headings first."""
    return [
        [word.strip() for word in line.replace("┃", "│").split("│")[1:-1]]
        for line in printed(table).splitlines()
        if line[:1] in ("│", "┃")
    ]


def shape(**sizes: Any) -> "Shape":
    """Sizes of an agent that sees one number and gives one, and all of it, for nine rounds of one step in one copy."""
    from node.numerics.critics import Shape

    width = sizes.pop("width", 1)
    usual: dict[str, Any] = {
        "agent": 0, "seed": 0, "steps": 1, "copies": 1, "rounds": 9, "actor_columns": slice(None), "critic_columns": slice(None),
        "actor_width": width, "critic_width": width, "act_dim": 1, "cost_limits": (),
    }  # fmt: skip
    return Shape(**usual | sizes)
