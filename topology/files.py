"""How a file of a run is written: whole or not at all, and never through what another program has put there.

A file is written beside its place under a name that cannot be guessed, opened so that nothing may lie there yet (a symbolic
link included), and then takes its place by renaming. So a reader sees the old contents or the new, and a link in the place
itself is replaced and not followed. That survives the death of a process, not of the machine: nothing is forced to the disk.
"""

import contextlib
import json
import os
import secrets
from collections.abc import Iterator
from pathlib import Path
from typing import Any, BinaryIO

from scenarios.loading import ScenarioError


@contextlib.contextmanager
def replacing(path: Path) -> Iterator[Path]:
    """A new, empty file beside `path`, which takes its place once the caller has filled it, and is removed if that fails.

    Raises:
        OSError: it cannot be made, written, or put in its place.
    """
    partial = path.with_name(f"{path.name}.{secrets.token_hex(8)}.partial")
    _made(partial).close()
    try:
        yield partial
        os.replace(partial, path)
    except BaseException:
        with contextlib.suppress(OSError):
            partial.unlink()
        raise


def replace(path: Path, content: bytes) -> None:
    """Write a file, whole or not at all.

    Raises:
        OSError: it cannot be written.
    """
    with replacing(path) as partial:
        partial.write_bytes(content)


def fresh(path: Path) -> BinaryIO:
    """An empty file to be written where only its owner writes; what lay there is removed, a link and not what it leads to.

    Raises:
        OSError: it cannot be made.
    """
    path.unlink(missing_ok=True)
    return _made(path)


def read_json(path: Path) -> dict[str, Any]:
    """A file that holds one JSON object.

    Raises:
        ScenarioError: it cannot be read, or holds something else.
    """
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise ScenarioError(f"{path}: cannot be read ({error.strerror})") from None
    except (ValueError, RecursionError) as error:
        raise ScenarioError(f"{path}: cannot be read ({' '.join(str(error).split())[:200]})") from None
    if not isinstance(found, dict):
        raise ScenarioError(f"{path}: cannot be read (it holds a {type(found).__name__}, expected an object)")
    return found


def _made(path: Path) -> BinaryIO:
    return os.fdopen(os.open(path, os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_WRONLY | os.O_CLOEXEC, 0o666), "wb")
