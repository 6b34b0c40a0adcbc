"""Start-up checks of the flat layout, made before anything else is imported.

The five rooms have everyday names (`node`, `envs`, ...), all of them taken on the public registry. A folder of that name
on the path would be imported instead of ours, and the run would fail far from the cause, or worse, not fail. So every entry
point calls `check_python` and `check_origin` first. This module imports only the standard library, and
its syntax is older than the Python it asks for, so that the message appears and not a syntax error.
"""

import importlib.util
import os
import signal
import sys
import sysconfig
from typing import Any

PACKAGES = ("kappahop", "node", "coordinator", "topology", "envs", "scenarios")
OLDEST = (3, 11)
INTERRUPTED = 130  # exit code


def check_python() -> None:
    """Ends the program if Python is too old.

    Raises:
        SystemExit: Python is older than 3.11; the text says how to cure it.
    """
    if sys.version_info[:2] < OLDEST:
        raise SystemExit(
            "kappahop needs Python {}.{} or newer, this is {}.{} ({}); make an environment with a newer one, "
            "e.g. make setup PYTHON=/path/to/python3.11".format(*OLDEST, *sys.version_info[:2], sys.executable)
        )


def check_origin() -> None:
    """Ends the program if one of the packages would come from anywhere but the folder that holds this one.

    Raises:
        SystemExit: a foreign folder or module has one of the names; the text gives its path and the cure.
    """
    found = strangers()
    if found:
        raise SystemExit("kappahop: " + found[0])


def end_when_interrupted() -> None:
    """Make Ctrl-C and SIGTERM end the program with one line, for as long as it imports: a traceback from there tells nothing."""
    for number, usual in _USUAL.items():
        if signal.getsignal(number) is usual:
            signal.signal(number, _end)


def interrupt_as_usual() -> None:
    """Take back what `end_when_interrupted` did."""
    for number, usual in _USUAL.items():
        if signal.getsignal(number) is _end:
            signal.signal(number, usual)


_USUAL: "dict[int, Any]" = {signal.SIGINT: signal.default_int_handler, signal.SIGTERM: signal.SIG_DFL}


def _end(number: int, frame: object) -> None:
    os.write(2, b"kappahop: interrupted\n")
    os._exit(INTERRUPTED)


def strangers() -> "list[str]":
    """One sentence for each of the names that would not be imported from where this file belongs to; [] is good."""
    root = _real(os.path.join(os.path.dirname(__file__), os.pardir, os.pardir))
    found = []
    for name in PACKAGES:
        ours = os.path.join(root, name)
        theirs = _source(name)
        if theirs is None:
            found.append(f"package {name!r} is missing, expected it in {ours}; install kappahop again")
        elif theirs != ours:
            found.append(f"{name!r} would be imported from {theirs} instead of {ours}; {_cure(theirs)}")
    return found


def _source(name: str) -> "str | None":
    try:
        spec = importlib.util.find_spec(name)
    except ValueError:  # imported, but by hand and without a spec
        return "an unknown place"
    if spec is None:
        return None
    places = list(spec.submodule_search_locations or [])
    return _real(places[0] if places else spec.origin or "an unknown place")


def _cure(path: str) -> str:
    installed = {_real(sysconfig.get_path(kind)) for kind in ("purelib", "platlib")}
    if os.path.dirname(path) in installed:
        return "another distribution in this environment has that name, so install kappahop into one of its own (make setup)"
    return "start kappahop from another folder, or take that one off PYTHONPATH"


def _real(path: str) -> str:
    return os.path.normcase(os.path.realpath(path))
