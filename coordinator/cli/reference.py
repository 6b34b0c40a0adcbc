"""The command line as a page: the help text of every verb, as the docs show it."""

from typing import Any

import typer

from coordinator.cli.examples import EXAMPLES


def markdown(app: typer.Typer) -> str:
    """A section for each verb, in the order of `kappahop --help`."""
    group: Any = typer.main.get_group(app)  # of typer's own copy of click, which has no public types
    context = group.context_class(group, info_name="kappahop")
    parts = ["# The command line\n\nMade from the code by `make docs`; `kappahop VERB --help` prints the same.\n"]
    for name in group.list_commands(context):
        verb = group.get_command(context, name)
        parts.append(f"## kappahop {name}\n\n{_section(verb, context, name)}")
    return "\n".join(parts)


def _section(verb: Any, parent: Any, name: str) -> str:
    context = verb.context_class(verb, info_name=name, parent=parent)
    usage = " ".join(["kappahop", name, *verb.collect_usage_pieces(context)])
    lines = [f"```\n{usage}\n```\n", f"{(verb.help or '').strip()}\n", "| argument or option | meaning |", "|---|---|"]
    for parameter in verb.get_params(context):
        record = parameter.get_help_record(context)
        if record is not None:
            option, meaning = (" ".join(text.split()).replace("|", "\\|") for text in record)
            lines.append(f"| `{option}` | {meaning} |")
    if name in EXAMPLES:
        lines += ["", "```sh", *EXAMPLES[name], "```"]
    return "\n".join(lines) + "\n"
