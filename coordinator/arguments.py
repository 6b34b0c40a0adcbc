"""What several verbs of the command share: arguments, exit codes, and how wrong input is refused."""

import sys
from typing import Annotated, NoReturn

import typer
from rich.console import Console

ScenarioArgument = Annotated[
    str, typer.Argument(metavar="SCENARIO", help="A shipped name (see `kappahop list`) or a YAML file.", show_default=False)
]
InProcessOption = Annotated[
    bool, typer.Option("--in-process", help="All agents in this process, one after the other: same result, for debugging.")
]


EXIT_INPUT, EXIT_FAILED, EXIT_INTERRUPTED = 2, 1, 130


def refuse(text: str, code: int = EXIT_INPUT) -> NoReturn:
    """End the command with one line on standard error."""
    from coordinator.display import failure

    Console(stderr=True).print(failure(text), soft_wrap=True)
    sys.exit(code)
