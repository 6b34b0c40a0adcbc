"""The first example runs as it is, and says what it promises."""

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]


@pytest.mark.system
def test_it_trains_counts_bytes_and_acts(tmp_path: Path, no_leaks: None) -> None:
    done = subprocess.run(
        [sys.executable, "-P", str(ROOT / "examples" / "01_first_run.py")],
        cwd=tmp_path,
        env=os.environ | {"PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        timeout=100,
        check=False,
    )
    assert (done.returncode, done.stderr) == (0, "")
    told = re.fullmatch(
        r"evaluated return (-[\d.]+)\n([\d,]+) bytes between agents, ([\d,]+) messages lost\n"
        r"agent 2 acts on what agents 1 2 3 observe: \[.*\]\ngoes on: kappahop resume runs/first-run-1 .*\n",
        done.stdout,
    )
    assert told, done.stdout
    assert int(told[2].replace(",", "")) > 100_000
    assert int(told[3].replace(",", "")) > 0
    assert (tmp_path / "runs" / "first-run-1" / "run.sqlite").is_file()
