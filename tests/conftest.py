"""What all tests share: annotations checked at run time, repeatable random examples, and no leftovers of system tests."""

import contextlib
import gc
import multiprocessing.forkserver
import multiprocessing.resource_tracker
import os
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import hypothesis
import psutil
import pytest
from beartype import BeartypeConf
from beartype.claw import beartype_packages
from jaxtyping import install_import_hook

# one thread per process, as in a run: on a busy machine two threads on such small matrices take thirty times as long
os.environ |= {"OMP_NUM_THREADS": "1", "MKL_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1"}
ROOT = Path(__file__).parents[1]
PACKAGES = ("kappahop", "node", "coordinator", "topology", "envs", "scenarios")
GRACE_S = 5.0  # a process that was told to stop may take 3 s (`supervision.stop_s`)


# must run before any of the packages is imported: where a module states shapes, every argument and result is checked against
# its annotation; with `make slow` everywhere, which takes a third of the time again
files = [file for package in PACKAGES for file in sorted((ROOT / package).rglob("*.py"))]
stating = [file for file in files if "from jaxtyping import" in file.read_text(encoding="utf-8")]
shaped = [".".join(file.relative_to(ROOT).with_suffix("").parts) for file in stating]
install_import_hook(shaped, "beartype.beartype")
if "KAPPAHOP_CHECK_CALLS" in os.environ:
    # they name there what they import only once a command needs it
    lazy = ("coordinator.cli.app", "coordinator.cli.options", "coordinator.cli.study", "coordinator.report.film")
    beartype_packages(PACKAGES, conf=BeartypeConf(claw_is_pep526=False, claw_skip_package_names=lazy))

import node.numerics.products  # noqa: E402, F401  (asks MKL for reproducible products before any test computes)

hypothesis.settings.register_profile("repeatable", derandomize=True, deadline=None, database=None)
hypothesis.settings.load_profile("repeatable")


@pytest.fixture(scope="module")
def stage(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Any]:
    """Where real node and world processes perform: one fork server for each module of system tests."""
    from tests.system.stage import ForkServer, Stage
    from topology.wire.sockets import new_context

    folder = tmp_path_factory.mktemp("s")
    context = new_context()
    fork_server = ForkServer(folder / "fork_server.log")
    yield Stage(folder, fork_server, context)
    fork_server.close()
    context.destroy(linger=0)


@pytest.fixture
def record_run(recorded: Callable[..., Path]) -> Callable[..., Path]:
    """Writes a run's folder without running it."""
    return recorded


@pytest.fixture(scope="session")
def recorded() -> Callable[..., Path]:
    """Writes a run's folder without running it: two agents, one copy, rounds of ten steps."""

    def record(
        folder: Path,
        *words: str,
        returns: Sequence[float | None] = (),
        round_bytes: Sequence[int] = (0, 0, 0, 0),
        ended: bool = True,
        evaluated: Mapping[int, float] | None = None,
        idle: float | None = None,
        cost: float = 0.5,
    ) -> Path:
        """Rounds as many as `round_bytes` has, of 2.5 s each; `returns[i]` is of the episode that ends in step 5·(i+1).

        `evaluated` are the returns of two episodes each after some rounds, of four at the end of the last; None: there are none.
        `idle` is what a team gets that does nothing, `cost` what every episode of the training costs.
        """
        from contextlib import closing

        from coordinator.records.database import Recorder, Results
        from coordinator.records.plan import make_run_dir, plan
        from coordinator.run.collector import Outcome
        from coordinator.run.idle import Idle
        from coordinator.run.metrics import report
        from scenarios.loading import load
        from topology.planes.control import EpisodeRow, RoundReport
        from topology.wire.ledger import Row

        usual = ["env.name=network_lq", "env.agents=2", "topology.kind=line", "env.num_envs=1", "rollout.steps=10"]
        ready = plan(load("quickstart", [*usual, f"budget.env_steps={10 * len(round_bytes)}", *words]))
        make_run_dir(folder, ready)
        with closing(Recorder(folder, env_steps_per_round=10)) as recorder:
            recorder.episodes(
                EpisodeRow(
                    round=i // 2,
                    env_step=5 * (i + 1),
                    copy_index=0,
                    ret=float("nan") if ret is None else ret,
                    cost=(cost,),
                    length=5,
                )
                for i, ret in enumerate(returns)
            )
            for place, n_bytes in enumerate(round_bytes):
                sent = (
                    Row(place, "peer", "0", "1", "STATE", 1, 4, n_bytes, 0, 0),
                    Row(place, "world", "0", "world", "ACT", 1, 4, 9, 0, 0),
                )
                for agent, traffic in ((0, sent), (1, ())):
                    recorder.round(
                        RoundReport(
                            role=f"node-{agent}", agent=agent, round=place, virtual_s=2.5 * (place + 1), metrics={"kl": 0.1},
                            traffic=traffic,
                        ),
                        1.0,
                    )  # fmt: skip
            for place, ret in (evaluated or {}).items():
                at_end = place == len(round_bytes) - 1
                judged = [
                    EpisodeRow(round=0, env_step=5, copy_index=copy, ret=ret + copy % 2 - 0.5, cost=(0.25,), length=5)
                    for copy in range(4 if at_end else 2)
                ]
                recorder.evaluation(place, 10 * (place + 1), judged, (), at_end=at_end)
            recorder.commit()
            if ended:
                still = None if idle is None else Idle(idle, [2.0] * ready.spec.n_costs)
                results = Results(folder)
                outcome = Outcome(wall_s=2.0, env_steps=10 * len(round_bytes), best_round=max(evaluated) if evaluated else None)
                recorder.meta(**report(ready, folder, results, outcome, idle=still))
                results.close()
        return folder

    return record


@pytest.fixture
def no_leaks() -> Iterator[None]:
    """Fails a test that leaves a process, a thread or a file descriptor behind.

    Counted are all descendants of the test process, orphans that call themselves `kappahop: ...`, Python's threads, ZeroMQ's
    native threads, and descriptors. The resource tracker and the forkserver of multiprocessing are meant to outlive a
    test; what the forkserver started is not.
    """
    multiprocessing.resource_tracker.ensure_running()
    gc.collect()
    before = set(_leftovers())
    yield
    patience = threading.Event()
    found: list[str] = []
    for _ in range(int(GRACE_S / 0.05)):
        gc.collect()
        found = [told for key, told in _leftovers().items() if key not in before]
        if not found:
            return
        patience.wait(0.05)
    for child in psutil.Process().children(recursive=True):
        if ("process", child) not in before and not _is_meant_to_stay(child):
            with contextlib.suppress(psutil.NoSuchProcess):
                child.kill()  # or it would disturb the tests that follow
    pytest.fail("the test left behind: " + "; ".join(sorted(found)), pytrace=False)


def _leftovers() -> dict[tuple[str, object], str]:
    """Everything that could be left behind, each with words for it."""
    things: dict[tuple[str, object], str] = {}
    for child in psutil.Process().children(recursive=True):
        if not _is_meant_to_stay(child):
            things["process", child] = f"process {_words(child)}"
    for stray in _orphans():
        things["process", stray] = f"orphan {_words(stray)}"
    for thread in threading.enumerate():
        things["thread", thread] = f"thread {thread.name}"
    for task in Path("/proc/self/task").glob("*"):
        with contextlib.suppress(OSError):
            if (name := (task / "comm").read_text(encoding="utf-8").strip()).startswith("ZMQ"):
                things["native thread", task.name] = f"native thread {name}"
    kept = getattr(getattr(multiprocessing.forkserver, "_forkserver", None), "_forkserver_alive_fd", None)
    for number in Path("/proc/self/fd").glob("*"):
        with contextlib.suppress(OSError):
            target = os.readlink(number)
            if number.name != str(kept) and not target.startswith(f"/proc/{os.getpid()}/"):
                things["descriptor", (number.name, target)] = f"descriptor {number.name} of {target}"
    return things


def _is_meant_to_stay(process: psutil.Process) -> bool:
    try:
        words, parent = _words(process), process.parent()
    except psutil.NoSuchProcess:
        return True  # it ended meanwhile
    if "multiprocessing.resource_tracker" in words:
        return True
    # a process that the forkserver forked bears its words until it takes a name of its own
    return "multiprocessing.forkserver" in words and parent is not None and "multiprocessing.forkserver" not in _words(parent)


def _orphans() -> Iterator[psutil.Process]:
    """Processes named `kappahop: ...` that belong to nobody: what adopted them is init or one of our own ancestors."""
    me = psutil.Process()
    ours = {me, *me.parents()}
    for process in psutil.process_iter():
        if not _words(process).startswith("kappahop:"):
            continue
        with contextlib.suppress(psutil.NoSuchProcess):
            line = [process, *process.parents()]
            if me in line:
                continue  # a descendant, counted as such
            oldest = [member for member in line if member not in ours and member.pid != 1][-1]
            # somebody else's run hangs on the shell or the test process that started it
            if _words(oldest).startswith("kappahop:") or "multiprocessing.forkserver" in _words(oldest):
                yield process


def _words(process: psutil.Process) -> str:
    try:
        return " ".join(process.cmdline()) or process.name()
    except psutil.ZombieProcess:
        return f"{process.pid}, ended but not waited for"
    except (psutil.NoSuchProcess, psutil.AccessDenied):
        return ""
