"""Files are written whole or not at all, and never through what somebody else has put there."""

import os
from pathlib import Path

import pytest

from topology.files import fresh, replace, replacing


def test_a_file_is_replaced_at_once(tmp_path: Path) -> None:
    path = tmp_path / "file"
    replace(path, b"one")
    with replacing(path) as partial:
        partial.write_bytes(b"two")
        assert path.read_bytes() == b"one"
    assert path.read_bytes() == b"two"
    assert list(tmp_path.iterdir()) == [path]
    mask = os.umask(0)
    os.umask(mask)
    assert path.stat().st_mode & 0o777 == 0o666 & ~mask


def test_what_fails_leaves_the_old_file_and_nothing_beside_it(tmp_path: Path) -> None:
    path = tmp_path / "file"
    replace(path, b"one")
    with pytest.raises(OSError, match="no room"), replacing(path):
        raise OSError(28, "no room")
    (tmp_path / "folder").mkdir()
    with pytest.raises(IsADirectoryError):
        replace(tmp_path / "folder", b"two")
    assert path.read_bytes() == b"one"
    assert sorted(one.name for one in tmp_path.iterdir()) == ["file", "folder"]


def test_links_are_replaced_and_never_followed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    mine = tmp_path / "mine"
    mine.write_text("kept")
    for name in ("replaced", "made", "replaced.guessed.partial"):
        (tmp_path / name).symlink_to(mine)
    replace(tmp_path / "replaced", b"new")
    with fresh(tmp_path / "made") as file:
        file.write(b"new")
    assert [(tmp_path / name).read_bytes() for name in ("replaced", "made")] == [b"new", b"new"]
    assert not (tmp_path / "made").is_symlink()
    monkeypatch.setattr("secrets.token_hex", lambda n: "guessed")
    with pytest.raises(FileExistsError):
        replace(tmp_path / "replaced", b"newer")
    assert mine.read_text() == "kept"
