"""Who watches the tests is watched: annotations are checked, and each kind of leak, made on purpose, is found."""

import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import networkx as nx
import pytest
import torch
from beartype.roar import BeartypeCallHintParamViolation
from jaxtyping import TypeCheckError

from node.learners.off_policy.mixer import Mixer
from topology.graph import neighbourhood

LEAKY = {
    "clean": "pass",
    "process": "subprocess.Popen([sys.executable, '-c', 'import time; time.sleep(60)'])",
    "zombie": "subprocess.Popen([sys.executable, '-c', '']); KEPT.append(sys._getframe())",
    "orphan": """
        program = "import setproctitle, time; setproctitle.setproctitle('kappahop: node 7'); time.sleep(20)"
        detach = f"import subprocess, sys; subprocess.Popen([sys.executable, '-c', {program!r}], start_new_session=True)"
        subprocess.run([sys.executable, "-c", detach], check=True)
    """,
    "forked": """
        context = multiprocessing.get_context("forkserver")
        KEPT.append(context.Process(target=time.sleep, args=(60,), daemon=True))
        KEPT[-1].start()
    """,
    "forkserver alone": """
        child = multiprocessing.get_context("forkserver").Process(target=int)
        child.start()
        child.join()
        child.close()
    """,
    "thread": "threading.Thread(target=time.sleep, args=(20,), daemon=True).start()",
    "native thread": "KEPT.append(zmq.Context()); KEPT.append(KEPT[-1].socket(zmq.PAIR))",
    "descriptor": "KEPT.append(open(os.devnull))",
}
PROMPT = ("clean", "process")  # the others in `make slow`
FOUND = {
    "clean": None,
    "process": "process ",
    "zombie": "process ",
    "orphan": "orphan kappahop: node 7",
    "forked": "process ",
    "forkserver alone": None,
    "thread": "thread Thread-",
    "native thread": "native thread ZMQbg",
    "descriptor": "of /dev/null",
}


@pytest.mark.slow
@pytest.mark.skipif("KAPPAHOP_CHECK_CALLS" not in os.environ, reason="`make slow` has calls checked")
def test_annotations_of_our_packages_are_checked() -> None:
    wrong: Any = "1"
    with pytest.raises(BeartypeCallHintParamViolation, match="kappa"):
        neighbourhood.ball(nx.path_graph(2), 0, wrong)


def test_shapes_are_checked_where_they_are_stated() -> None:
    mixer = Mixer(2, 3, torch.Generator())
    mixer(torch.zeros(5, 2), torch.zeros(5, 3))
    with pytest.raises(TypeCheckError, match="state"):
        mixer(torch.zeros(5, 2), torch.zeros(6, 3))


@pytest.mark.system
@pytest.mark.parametrize("kind", [pytest.param(kind, marks=[] if kind in PROMPT else [pytest.mark.slow]) for kind in LEAKY])
def test_each_kind_of_leak_is_found_and_nothing_else(kind: str, tmp_path: Path) -> None:
    conftest = (Path(__file__).parent / "conftest.py").read_text(encoding="utf-8").replace("GRACE_S = 5.0", "GRACE_S = 1.0")
    assert "GRACE_S = 1.0" in conftest
    (tmp_path / "conftest.py").write_text(conftest, encoding="utf-8")
    body = "\n".join(f"    {line.strip()}" for line in LEAKY[kind].strip().splitlines())
    (tmp_path / "test_leaky.py").write_text(
        f"import multiprocessing, os, subprocess, sys, threading, time, zmq\nKEPT = []\ndef test_leaky(no_leaks):\n{body}\n"
    )
    done = subprocess.run(
        [sys.executable, "-m", "pytest", "-q", "-rN", "-p", "no:cacheprovider", "-c", "/dev/null", "--rootdir", ".", "."],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        timeout=50,
        check=False,
    )
    found = FOUND[kind]
    if found is None:
        assert "1 passed" in done.stdout, done.stdout
        assert done.returncode == 0, done.stdout
    else:
        assert "the test left behind: " in done.stdout, done.stdout + done.stderr
        assert found in done.stdout.split("left behind: ")[1], done.stdout
