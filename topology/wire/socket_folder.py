"""The private folder in which the sockets of a run lie, and the end of such folders that no process uses any more.

Theory of operation. Each command makes a folder of its own among the temporary files and holds a lock on it (`flock`). The
processes that it starts inherit the lock, so the kernel keeps it for as long as any of them lives, and gives it up when the last
has ended, however that ends. A folder whose lock is free has been left behind: by a command and a fork server that were killed at
the same time, or by a machine that has lost its power. Whatever makes a folder removes such ones first.

Sockets without a file (Linux's abstract ones) would leave nothing, but any user of the machine may connect to those.
"""

import contextlib
import fcntl
import os
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path

PREFIX = "kappahop."


@contextlib.contextmanager
def socket_folder() -> Iterator[tuple[Path, int]]:
    """A new folder, which no other user can enter, and the descriptor of its lock; the folder is removed at the end."""
    remove_abandoned()
    path, lock = _made()
    try:
        yield path, lock
    finally:
        shutil.rmtree(path, ignore_errors=True)
        os.close(lock)


def remove_abandoned() -> None:
    """Remove this user's folders whose lock is free."""
    for path in Path(tempfile.gettempdir()).glob(f"{PREFIX}*"):
        lock = _lock(path)
        if lock is not None:
            shutil.rmtree(path, ignore_errors=True)
            os.close(lock)


def _made() -> tuple[Path, int]:
    while True:
        path = Path(tempfile.mkdtemp(prefix=PREFIX))
        lock = _lock(path)
        if lock is not None and path.exists():
            return path, lock
        if lock is not None:  # removed as abandoned, in the moment before it had a lock
            os.close(lock)


def _lock(path: Path) -> int | None:
    """The lock of a folder, or None if it is another's, or none of ours."""
    try:
        lock = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC)
    except OSError:
        return None
    try:
        if os.fstat(lock).st_uid == os.geteuid():
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            return lock
    except OSError:
        pass
    os.close(lock)
    return None
