"""The commands of the tutorial work, in the order in which it gives them."""

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

PAGE = Path(__file__).parents[2] / "docs" / "tutorial" / "which-kappa.md"
COMMANDS = [
    line for block in re.findall(r"```sh\n(.*?)```", PAGE.read_text(encoding="utf-8"), re.S) for line in block.splitlines()
]


@pytest.mark.slow
@pytest.mark.system
@pytest.mark.timeout(600)
def test_every_command_of_the_tutorial_succeeds(tmp_path: Path, no_leaks: None) -> None:
    assert sum(line.startswith("kappahop ") for line in COMMANDS) > 6
    path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    for command in COMMANDS:
        done = subprocess.run(
            ["bash", "-c", command],
            cwd=tmp_path,
            env=os.environ | {"PATH": path},
            capture_output=True,
            text=True,
            timeout=400,
            check=False,
        )
        assert done.returncode == 0, f"{command}\n{done.stdout}{done.stderr}"
    assert (tmp_path / "which.html").stat().st_size > 10_000
