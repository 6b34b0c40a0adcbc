"""How start-up, memory and speed grow with the number of agents: `python benchmarks/scale.py`. About six minutes on two cores.

The linear network on a ring, κ = 1, ideal links, one environment copy, MAPPO with critics that take the κ-hop neighbourhood,
networks 16 wide, rounds of 40 steps. Agents share processes as `supervision.agents_per_process=auto` has it: a pack for each
core. One number of agents is measured with a process for each agent too. Of each run:

- start-up: seconds of wall time from the start of the command to the first step of the world, and the CPU seconds that all
  processes of the run have taken by then;
- memory: the sum of the proportional set sizes (PSS) of all processes, in which shared pages count once;
- speed: CPU seconds and wall seconds for each agent and step, learning included, over all rounds but the first and the last.

From a least-squares line through the logarithms follows the exponent e of cost ~ n^e: of CPU seconds of start-up, and of CPU
seconds of a step of all agents. 1 means that an agent costs the same whatever the number of agents.

It prints a table and writes `docs/results/data/scale.json` and `.svg`. `make demo` and other programs must not run meanwhile.
"""

import argparse
import json
import platform
import tempfile
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import matplotlib
import numpy as np
import psutil
from matplotlib.figure import Figure

from coordinator.records.database import Recorder
from coordinator.records.plan import check_start, make_run_dir, plan
from coordinator.run import supervisor
from scenarios.loading import load
from topology.planes.control import Control, Progress, RoundReport

FOLDER = Path(__file__).parents[1] / "docs" / "results" / "data"
AGENTS = (64, 128, 256, 512, 1000)
AS_PROCESSES = 256
STEPS, ROUNDS = 40, 4
SETTINGS = (
    "env.name=network_lq", "topology.kind=ring", "kappa=1", "env.num_envs=1", f"rollout.steps={STEPS}",
    f"budget.env_steps={STEPS * ROUNDS}", "algorithm.name=mappo", "algorithm.critic_scope=khop", "algorithm.hidden=[16]",
    "algorithm.epochs=2", "algorithm.minibatches=1", "evaluation.every_rounds=0", "record.tensorboard=false",
    "record.state_rounds=0", "supervision.start_s=900",
)  # fmt: skip


@dataclass(frozen=True, slots=True)
class Figures:
    """What was measured of one run; see the head of this file."""

    agents: int
    agents_per_process: str
    processes: int
    start_wall_s: float
    start_cpu_s: float
    pss_mb: float
    cpu_us_per_agent_step: float
    wall_us_per_agent_step: float


class Meter:
    """Looks at the processes of a run when its reports come in.

    Args:
        agents: n.
    """

    def __init__(self, agents: int) -> None:
        self._agents = agents
        self._began = self._now()
        self._reports = 0
        self._start: tuple[float, float] | None = None
        self._from = self._until = self._began
        self._pss_mb, self._processes = 0.0, 0

    def look(self, report: Control) -> None:
        """Take in a report."""
        if isinstance(report, Progress) and self._start is None:
            self._start = self._now()
        if not isinstance(report, RoundReport):
            return
        self._reports += 1
        if self._reports == self._agents:  # after the first round, which does not count
            family = _family()
            self._pss_mb = sum(process.memory_full_info().pss for process in family) / 1e6
            self._processes = len(family)
            self._from = self._now()
        if self._reports == self._agents * (ROUNDS - 1):  # in the last round processes end
            self._until = self._now()

    def figures(self, packed: str) -> Figures:
        """What was measured."""
        assert self._start is not None, "the world has reported nothing"
        steps = 1e-6 * self._agents * STEPS * (ROUNDS - 2)
        return Figures(
            agents=self._agents,
            agents_per_process=packed,
            processes=self._processes,
            start_wall_s=self._start[0] - self._began[0],
            start_cpu_s=self._start[1] - self._began[1],
            pss_mb=self._pss_mb,
            cpu_us_per_agent_step=(self._until[1] - self._from[1]) / steps,
            wall_us_per_agent_step=(self._until[0] - self._from[0]) / steps,
        )

    @staticmethod
    def _now() -> tuple[float, float]:
        """Wall seconds, and CPU seconds of all processes of the run."""
        spent = [process.cpu_times() for process in _family()]
        return time.monotonic(), sum(times.user + times.system for times in spent)


def _family() -> list[psutil.Process]:
    me = psutil.Process()
    return [me, *me.children(recursive=True)]


def measure(agents: int, packed: str) -> Figures:
    """The figures of one run.

    Raises:
        SystemExit: the run failed.
    """
    meter = Meter(agents)
    with tempfile.TemporaryDirectory() as folder:
        words = [f"env.agents={agents}", f"supervision.agents_per_process={packed}"]
        ready = plan(load("quickstart", [*SETTINGS, *words]))
        check_start(ready, in_process=False)
        run_dir = Path(folder) / "run"
        make_run_dir(run_dir, ready)
        recorder = Recorder(run_dir, env_steps_per_round=STEPS, sinks=[])
        outcome = supervisor.run(ready, run_dir, recorder, meter.look)
        recorder.close()
    if outcome.error is not None:
        raise SystemExit(f"{agents} agents, {packed} per process: {outcome.error}")
    return meter.figures(packed)


def exponent(found: Sequence[Figures], name: str) -> float:
    """The exponent e of the power of n by which a figure grows, from a least-squares line through the logarithms."""
    n = np.log([one.agents for one in found])
    return float(np.polyfit(n, np.log([getattr(one, name) for one in found]), 1)[0])


def draw(packs: Sequence[Figures], apart: Sequence[Figures], exponents: dict[str, float]) -> None:
    """The figure: start-up, memory and speed against the number of agents."""
    panels = (
        ("start_wall_s", 1.0, "start-up [s]"),
        ("pss_mb", 1e-3, "memory [GB]"),
        ("cpu_us_per_agent_step", 1e-3, "CPU time per agent and step [ms]"),
    )
    with matplotlib.rc_context({"svg.fonttype": "none", "svg.hashsalt": "kappahop", "font.size": 8}):
        figure = Figure(figsize=(7.0, 2.6), layout="constrained")
        for axes, (name, unit, label) in zip(figure.subplots(1, 3), panels, strict=True):
            for found, marker, text in ((packs, "o-", "packs"), (apart, "s", "a process each")):
                axes.plot(
                    [one.agents for one in found], [unit * getattr(one, name) for one in found], marker, label=text, markersize=4
                )
            axes.set(xscale="log", xlabel="agents", ylabel=label)
            axes.set_xticks([one.agents for one in packs], [str(one.agents) for one in packs], minor=False)
            axes.minorticks_off()
            axes.set_ylim(bottom=0)
            axes.grid(visible=True, linewidth=0.3)
        figure.axes[0].legend(frameon=False)
        figure.axes[0].set_title(f"CPU time ~ n^{exponents['start']:.2f}")
        figure.axes[2].set_title(f"CPU time of all ~ n^{exponents['step']:.2f}")
        figure.savefig(FOLDER / "scale.svg", metadata={"Date": None, "Creator": None})


def _processor() -> str:
    """The model of the processor, as the system names it."""
    lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    return next((line.partition(": ")[2] for line in lines if line.startswith("model name")), platform.machine())


def main() -> None:
    """Measure, print, store."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--up-to", type=int, default=max(AGENTS), help="agents at most (default %(default)s)")
    parser.add_argument("--no-files", action="store_true", help="print only, store nothing")
    asked = parser.parse_args()
    print("| agents | agents per process | processes | start-up [s] | its CPU time [s] | PSS [GB] | CPU [µs] | wall [µs] |")
    print("|---|---|---|---|---|---|---|---|")
    found = []
    for agents, packed in [*((n, "auto") for n in AGENTS), (AS_PROCESSES, "1")]:
        if agents <= asked.up_to:
            found.append(one := measure(agents, packed))
            start = f"{one.processes} | {one.start_wall_s:.1f} | {one.start_cpu_s:.1f} | {one.pss_mb / 1e3:.2f}"
            speed = f"{one.cpu_us_per_agent_step:.0f} | {one.wall_us_per_agent_step:.0f}"
            print(f"| {agents} | {packed} | {start} | {speed} |", flush=True)
    packs = [one for one in found if one.agents_per_process == "auto"]
    apart = [one for one in found if one.agents_per_process == "1"]
    if len(packs) < 2:
        return
    exponents = {"start": exponent(packs, "start_cpu_s"), "step": 1 + exponent(packs, "cpu_us_per_agent_step")}
    print(f"\nCPU time of start-up ~ n^{exponents['start']:.2f}, of a step of all agents ~ n^{exponents['step']:.2f}")
    print(_processor())
    if not asked.no_files:
        data = {
            "command": "python benchmarks/scale.py",
            "processor": _processor(),
            "cores": psutil.cpu_count(),
            "exponents": exponents,
        }
        text = json.dumps({**data, "runs": [asdict(one) for one in found]}, indent=1)
        (FOLDER / "scale.json").write_text(text + "\n", encoding="utf-8")
        draw(packs, apart, exponents)


if __name__ == "__main__":
    main()
