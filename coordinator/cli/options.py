"""What several verbs of the command share: arguments, and how wrong input is refused."""

import contextlib
import sys
from collections.abc import Iterator
from typing import Annotated, NoReturn

import typer

from coordinator.cli.terminal import terminal
from coordinator.exit_codes import EXIT_INPUT
from scenarios.registry import allowing_code

ScenarioArgument = Annotated[
    str, typer.Argument(metavar="SCENARIO", help="A shipped name (see `kappahop list`) or a YAML file.", show_default=False)
]
InProcessOption = Annotated[
    bool, typer.Option("--in-process", help="All agents in this process, one after the other: same result, for debugging.")
]


def _allow_code(context: typer.Context, allow: bool) -> bool:
    context.with_resource(allowing_code(allow=allow))
    return allow


AllowCodeOption = Annotated[
    bool,
    typer.Option(
        "--allow-code",
        callback=_allow_code,
        is_eager=True,
        help="Let the scenario name code by import path, e.g. `env.name=mypackage.worlds:WORLD`: it is imported, so trust it.",
    ),
]


def refuse(text: str, code: int = EXIT_INPUT) -> NoReturn:
    """End the command with one line on standard error."""
    from coordinator.cli.progress import failure

    terminal(stderr=True).print(failure(text), soft_wrap=True)
    sys.exit(code)


@contextlib.contextmanager
def refusals(*kinds: type[Exception], code: int = EXIT_INPUT) -> Iterator[None]:
    """End the command with one line where an error means wrong input. It decorates a verb, or stands around a block.

    A run stays outside of it: an error in the midst of a run is not wrong input, and its traceback is wanted.

    Args:
        kinds: Which errors; without any, ValueError, of which all errors of scenarios are.
        code: Exit code.
    """
    caught = kinds or (ValueError,)
    try:
        yield
    except caught as error:
        refuse(str(error), code)
