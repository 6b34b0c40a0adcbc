"""`kappahop new`: small packages to start from, which pass their own tests.

The files are templates in `templates/KIND/`; `examples/02_own_world` and `examples/03_own_objective` are what they make.
"""

import re
from pathlib import Path

from jinja2 import Environment, StrictUndefined

from scenarios.loading import ScenarioError

TEMPLATES = Path(__file__).parent / "templates"
KINDS = ("world", "objective", "scenario")


def write(kind: str, name: str, folder: Path) -> list[Path]:
    """Write a package.

    Args:
        kind: One of `KINDS`.
        name: Its name, and that which scenarios use.
        folder: Where; new or empty.

    Returns:
        The files.

    Raises:
        ScenarioError: the name is no name of a Python module, or the folder holds something or cannot be written.
    """
    if not re.fullmatch(r"[a-z][a-z0-9_]{1,40}", name):
        raise ScenarioError(f"NAME: got {name!r}; expected 2 to 41 small letters, digits and underscores, such as my_{kind}")
    written = []
    environment = Environment(undefined=StrictUndefined, keep_trailing_newline=True, autoescape=False)
    try:
        folder.mkdir(parents=True, exist_ok=True)
        if any(folder.iterdir()):
            raise ScenarioError(f"--out: {folder} already holds something; give a new or empty directory")
        for source in sorted((TEMPLATES / kind).iterdir()):
            path = folder / source.name.replace("%name%", name).removesuffix(".jinja")
            path.write_text(environment.from_string(source.read_text(encoding="utf-8")).render(name=name), encoding="utf-8")
            written.append(path)
    except OSError as error:
        raise ScenarioError(f"--out: cannot write {folder} ({error.strerror})") from None
    return written
