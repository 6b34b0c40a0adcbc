"""`kappahop doctor`: is this machine fit to run agents?

Each check is independent of the others and never raises: what goes wrong becomes a failed `Check` whose detail says
what to do. torch and MuJoCo are tried in processes of their own, so that this command stays light and survives a build
that crashes on this processor.
"""

import os
import platform
import resource
import shutil
import subprocess
import sys
import tomllib
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path
from typing import Literal

import psutil
from packaging.requirements import InvalidRequirement, Requirement

from coordinator.cli import guard
from topology.wire import probe

MIN_MEMORY_MB = 1024  # the command, the fork server with torch and a world take 0.6 GB; each node adds 15 MB or more
MIN_DISK_MB = 512  # a database, logs and checkpoints of a long run are under 200 MB
MIN_FILES = 1024  # each neighbour costs a process about two descriptors, ZeroMQ some ten besides
TRY_S = 60.0  # torch's first import from a cold disk has taken 20 s

_TRY_MUJOCO = """
import mujoco
model = mujoco.MjModel.from_xml_string('<mujoco><worldbody><body><freejoint/><geom size="1"/></body></worldbody></mujoco>')
data = mujoco.MjData(model)
mujoco.mj_step(model, data)
assert data.qvel[2] < 0, "a free ball did not fall"
print(mujoco.__version__)
"""
_TRY_TORCH = """
import torch
torch.set_num_threads(1)
product = torch.full((8, 8), 2.0) @ torch.eye(8)
assert bool((product == 2.0).all()), "a matrix times the identity changed"
print(torch.__version__)
"""


@dataclass(frozen=True, slots=True)
class Check:
    """The outcome of one check.

    Attributes:
        name: What was looked at, one or two words.
        ok: Whether a run can be expected to work.
        detail: What was found; if not ok, also what to do about it.
    """

    name: str
    ok: bool
    detail: str


def checks() -> list[Check]:
    """All checks, in the order in which they are best read. Takes a few seconds."""
    return [
        _guarded(name, look)
        for name, look in (
            ("python", _python),
            ("origin", _origin),
            ("packages", _packages),
            ("cores", _cores),
            ("memory", _memory),
            ("disk", _disk),
            ("open files", _open_files),
            ("fork", _fork),
            ("ipc sockets", lambda: _sockets("ipc")),
            ("tcp loopback", lambda: _sockets("tcp")),
            ("mujoco", lambda: _tried(_TRY_MUJOCO, "stepped a falling ball")),
            ("torch", lambda: _tried(_TRY_TORCH, "multiplied two matrices")),
        )
    ]


Outcome = tuple[bool, str]


def _guarded(name: str, look: Callable[[], Outcome]) -> Check:
    try:
        ok, detail = look()
    except Exception as error:  # noqa: BLE001 (a doctor reports whatever is wrong)
        ok, detail = False, f"{type(error).__name__}: {' '.join(str(error).split())}"
    return Check(name, ok, detail)


def _python() -> Outcome:
    oldest = ".".join(map(str, guard.OLDEST))
    ok = sys.version_info[:2] >= guard.OLDEST
    return ok, f"{platform.python_version()} at {sys.executable}" + ("" if ok else f"; needs {oldest} or newer")


def _origin() -> Outcome:
    found = guard.strangers()
    return not found, "; ".join(found) or "all five packages are ours"


def _packages() -> Outcome:
    wrong = []
    requirements = list(_requirements())
    for requirement in requirements:
        try:
            version = metadata.version(requirement.name)
        except metadata.PackageNotFoundError:
            wrong.append(f"{requirement} is not installed")
            continue
        if not requirement.specifier.contains(version, prereleases=True):
            wrong.append(f"{requirement.name} is {version}, needs {requirement.specifier}")
    if wrong:
        return False, "; ".join(wrong) + "; run make setup"
    drifted = [f"{name} {found} (tested: {pinned})" for name, found, pinned in _drift({item.name for item in requirements})]
    note = f"; not the tested version: {', '.join(drifted)}" if drifted else ""
    return True, f"all {len(requirements)} that are required{note}"


def _requirements() -> Iterator[Requirement]:
    # the checkout's own list comes first: the metadata of an editable install are as old as the install
    project = _root() / "pyproject.toml"
    if project.is_file():
        lines = tomllib.loads(project.read_text(encoding="utf-8"))["project"]["dependencies"]
    else:
        lines = metadata.requires("kappahop") or []
    for requirement in map(Requirement, lines):
        if requirement.marker is None or requirement.marker.evaluate({"extra": ""}):
            yield requirement


def _drift(names: set[str]) -> Iterator[tuple[str, str, str]]:
    constraints = _root() / "constraints.txt"
    if not constraints.is_file():
        return
    for line in constraints.read_text(encoding="utf-8").splitlines():
        try:
            pin = Requirement(line.partition("#")[0])
        except InvalidRequirement:
            continue
        if pin.name not in names:
            continue
        found = metadata.version(pin.name)
        if not pin.specifier.contains(found, prereleases=True):
            yield pin.name, found, str(pin.specifier).removeprefix("==")


def _root() -> Path:
    return Path(__file__).resolve().parents[2]


def _cores() -> Outcome:
    usable = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return True, f"{usable} usable"


def _memory() -> Outcome:
    free = psutil.virtual_memory().available
    limit = Path("/sys/fs/cgroup/memory.max")
    note = ""
    if limit.is_file() and (text := limit.read_text(encoding="ascii").strip()).isdigit():
        used = int(Path("/sys/fs/cgroup/memory.current").read_text(encoding="ascii"))
        if int(text) - used < free:
            free, note = max(0, int(text) - used), ", limited by this container"
    return _enough(free >> 20, MIN_MEMORY_MB, note, "end other programs, or run fewer agents")


def _disk() -> Outcome:
    here = Path.cwd()
    if not os.access(here, os.W_OK):
        return False, f"{here} cannot be written; start from a folder of yours"
    return _enough(shutil.disk_usage(here).free >> 20, MIN_DISK_MB, f" in {here}", "make room, or start from another folder")


def _enough(free_mb: int, least_mb: int, note: str, cure: str) -> Outcome:
    ok = free_mb >= least_mb
    return ok, f"{free_mb} MB free{note}" + ("" if ok else f"; at least {least_mb} MB are wanted: {cure}")


def _open_files() -> Outcome:
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft == resource.RLIM_INFINITY or soft >= MIN_FILES:
        return True, f"{'unlimited' if soft == resource.RLIM_INFINITY else soft} per process"
    cure = f"ulimit -n {MIN_FILES}" if hard == resource.RLIM_INFINITY or hard >= MIN_FILES else f"the hard limit is {hard}"
    return False, f"{soft} per process; at least {MIN_FILES} are wanted: {cure}"


def _fork() -> Outcome:
    ok = sys.platform == "linux"
    return ok, "available" if ok else f"this is {sys.platform}; kappahop forks its processes and minds orphans as Linux does"


def _sockets(transport: Literal["ipc", "tcp"]) -> Outcome:
    try:
        return True, f"round trip {probe.round_trip(transport) * 1e6:.0f} µs"
    except probe.ProbeError as error:
        return False, str(error)


def _tried(program: str, success: str) -> Outcome:
    try:
        done = subprocess.run(
            [sys.executable, "-P", "-c", program],
            capture_output=True,
            text=True,
            timeout=TRY_S,
            check=False,
            stdin=subprocess.DEVNULL,
        )
    except subprocess.TimeoutExpired:
        return False, f"gave no answer within {TRY_S:.0f} s"
    if done.returncode:
        last = (done.stderr.strip().splitlines() or [f"ended with code {done.returncode}"])[-1]
        return False, f"{last}; run make setup"
    return True, f"{done.stdout.strip()} {success}"
