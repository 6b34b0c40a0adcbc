"""The notebook: executed as it is in a kernel of its own; interrupted and killed while it trains, it leaves no process."""

import contextlib
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import psutil
import pytest

nbformat = pytest.importorskip("nbformat", reason="the extra `dev` has what runs notebooks")
pytest.importorskip("ipykernel")
from jupyter_client.manager import start_new_kernel  # noqa: E402
from nbclient import NotebookClient  # noqa: E402

ROOT = Path(__file__).parents[2]
pytestmark = [
    pytest.mark.slow,
    pytest.mark.system,
    pytest.mark.filterwarnings("default"),
]  # those of the kernel's libraries are theirs
ENDLESS = """
import kappahop as kh
kh.run("lq_line20", out="RUN", on_round=lambda one: print("round", one.round, flush=True), kappa=1,
       env={"agents": 3, "num_envs": 2}, rollout={"steps": 20}, budget={"env_steps": 100_000_000},
       evaluation={"every_rounds": 0}, record={"state_rounds": 1})
"""


@pytest.fixture
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder for a kernel to work in, with its own places for what Jupyter writes."""
    for name in ("JUPYTER_RUNTIME_DIR", "JUPYTER_CONFIG_DIR", "JUPYTER_DATA_DIR", "IPYTHONDIR"):
        monkeypatch.setenv(name, str(tmp_path / name.lower()))
    monkeypatch.setenv("PYTHONPATH", str(ROOT))
    monkeypatch.setenv("PYDEVD_DISABLE_FILE_VALIDATION", "1")
    return tmp_path


def test_the_notebook_runs_to_its_figure(place: Path) -> None:
    notebook = nbformat.read(ROOT / "examples" / "05_notebook.ipynb", as_version=4)
    NotebookClient(notebook, timeout=100, kernel_name="python3", resources={"metadata": {"path": str(place)}}).execute()
    outputs = [output for cell in notebook.cells for output in cell.get("outputs", ())]
    assert [output for output in outputs if output.output_type in ("stream", "error")] == []
    assert any("image/png" in output.get("data", {}) for output in outputs)
    assert "'STATE': " in outputs[-1]["data"]["text/plain"]
    assert len(list((place / "runs").glob("*/run.sqlite"))) == 2


@pytest.fixture
def kernel(place: Path) -> Iterator[tuple[Any, Any]]:
    manager, client = start_new_kernel(kernel_name="python3", startup_timeout=60, cwd=str(place))
    yield manager, client
    client.stop_channels()
    if manager.is_alive():
        manager.shutdown_kernel(now=True)
    manager.context.destroy(linger=0)


def told(client: Any, wanted: str) -> str:
    """What the kernel sends until a text comes."""
    heard = ""
    while wanted not in heard:
        message = client.get_iopub_msg(timeout=30)["content"]
        heard += message.get("text", "") + "\n".join(message.get("traceback", ()))
    return heard


def ours(manager: Any) -> list[psutil.Process]:
    """The processes of a run that the kernel has started."""
    children = psutil.Process(manager.provisioner.pid).children(recursive=True)
    return [child for child in children if " ".join(child.cmdline()).startswith("kappahop")]


def test_interrupted_the_kernel_stays_of_use_and_killed_it_leaves_no_process(kernel: tuple[Any, Any], place: Path) -> None:
    manager, client = kernel
    client.execute(ENDLESS.replace("RUN", "first"))
    told(client, "round 2")
    started = ours(manager)
    assert len(started) == 5  # fork server, world, three nodes
    manager.interrupt_kernel()
    told(client, "kappahop.resume goes on")
    assert client.get_shell_msg(timeout=60)["content"]["ename"] == "KeyboardInterrupt"
    assert psutil.wait_procs(started, timeout=20)[1] == []
    client.execute("print('still', kh.resume('first', in_process=True, on_round=lambda one: False).is_complete)")
    told(client, "still False")

    client.execute(ENDLESS.replace("RUN", "second"))
    told(client, "round 2")
    started = ours(manager)
    assert len(started) == 5
    os.kill(manager.provisioner.pid, 9)
    _, alive = psutil.wait_procs(started, timeout=20)
    with contextlib.suppress(psutil.NoSuchProcess):
        assert [child for child in alive if child.status() != psutil.STATUS_ZOMBIE] == []
