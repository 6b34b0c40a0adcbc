"""What `kappahop list` shows: scenarios, and registered names with the package that brings them."""

from collections.abc import Callable, Mapping

from rich.table import Table

from scenarios.loading import load, shipped
from scenarios.registry import ALGORITHMS, LINK_PRESETS, OURS, REGISTRIES, WORLDS, Registry, RegistryError


def scenarios() -> Table:
    """The scenarios that come with the package."""
    table = _table("scenario", "what it shows")
    for name in shipped():
        table.add_row(name, load(name, resolve_worlds=False).description)
    return table


def names(registry: Registry) -> Table:
    """The names of one registry, each with where it comes from."""
    table = _table(registry.kind, "from")
    for name in registry.names():
        table.add_row(name, _origin(registry, name))
    return table


def plugins() -> Table:
    """All names that do not come with the package."""
    table = _table("kind", "name", "from")
    for registry in REGISTRIES.values():
        for name in registry.names():
            if (origin := _origin(registry, name)) != OURS:
                table.add_row(registry.kind, name, origin)
    if not table.row_count:
        table.add_row("none", "", f"entry points of the groups {', '.join(one.group for one in REGISTRIES.values())} add names")
    return table


def _origin(registry: Registry, name: str) -> str:
    try:
        return registry.origin(name)
    except RegistryError as error:  # two packages claim the name
        return str(error)


def _table(*headings: str) -> Table:
    table = Table(show_lines=False)
    for place, heading in enumerate(headings):
        table.add_column(heading, no_wrap=place == 0)
    return table


LISTS: Mapping[str, Callable[[], Table]] = {
    "scenarios": scenarios,
    "worlds": lambda: names(WORLDS),
    "algorithms": lambda: names(ALGORITHMS),
    "presets": lambda: names(LINK_PRESETS),
    "plugins": plugins,
}
