"""From a scenario to a run that can be started: every check that needs no process is made here, before any is."""

import errno
import json
import os
import platform
import resource
import secrets
import socket
import subprocess
import tempfile
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from importlib import metadata
from pathlib import Path
from typing import Any, TypeVar

import networkx as nx
from pydantic import ValidationError

from coordinator.records import sinks
from coordinator.records.packs import pack_size
from coordinator.records.run_sqlite import DATABASE
from coordinator.records.weights import check_origin, keep_origin, kept_origin, with_weights_not_finite, without_weights
from envs.interface import EnvSpec
from envs.registry import outlook
from envs.registry import spec as env_spec
from envs.settings import TeamEnv
from node.protocol.kinds import averaged, largest_peer_body, sizes_of
from node.protocol.scopes import scope_agents
from scenarios.loading import ScenarioError, dump, load
from scenarios.plugins import check_importable, used_by
from scenarios.registry import REGISTRIES
from scenarios.schema import TRACE, Budget, Change, Edge, Network, Part, Scenario
from topology.deployment import CHECKPOINTS, DEPLOYMENT_FILE, LOGS, SCENARIO_FILE, Deployment, graph_fields
from topology.files import read_json
from topology.graph.generators import build
from topology.graph.given import read_graph
from topology.graph.neighbourhood import visible
from topology.link.schedule import Schedule
from topology.planes.control import MAX_WEIGHTS
from topology.wire.frame import MAX_ARRAY_BYTES
from topology.wire.keys import is_secured, make_keys
from topology.wire.socket_folder import PREFIX

MANIFEST_FILE = "manifest.json"
MAX_FOLDER_BYTES = 107 - len(f"/{PREFIX}12345678/node-1023")
OWN_DESCRIPTORS = 50  # of a process without links: 16 to 20, and some for what it opens now and then
PACKED_DESCRIPTORS = 20  # of a node in a pack without links: its sockets and, on tcp with keys, a context and a gate
MANY_DESCRIPTORS = 1 << 16
NAMED = 4  # agents of a kind, in a message
EVALUATED_FRAC = 0.15  # of the steps: evaluations cost a quarter of what training does for a step, see decision 0020
MOST_EVALUATIONS = 10  # in the course of a run, if the scenario does not say otherwise
_Links = TypeVar("_Links", Network, Part, Edge, Change)
_PACKAGES = ("kappahop", "torch", "numpy", "networkx", "pyzmq", "msgpack", "mujoco", "gymnasium", "pydantic", "safetensors")


@dataclass(frozen=True, slots=True)
class Plan:
    """A checked scenario with what follows from it."""

    scenario: Scenario
    spec: EnvSpec
    deployment: Deployment
    origin: Path | None = None  # the run, or what is kept of it, with whose weights this one begins

    @property
    def draws(self) -> bool:
        """Whether policies draw their actions where they are evaluated."""
        return self.scenario.evaluation.draws(limited=bool(self.deployment.cost_limits))


def plan(scenario: Scenario, *, weights: Path | None = None, graph: nx.Graph | None = None, origin: Path | None = None) -> Plan:
    """Work out sizes and graph.

    Args:
        scenario: What to run.
        weights: Checkpoint folder to evaluate; None: train from scratch.
        graph: The graph of a run as it has kept it, whatever has become of its file; None: the one that the scenario says.
        origin: What a run has kept of the one that it began with; None: the one that the scenario says (`init_from`), if any.

    Raises:
        ScenarioError: the checkpoint lacks an agent, a sink its package, or the weights to begin with do not fit. Another
            ValueError: the world has no such partition, the graph does not fit, or the links cannot be as `network` says. The
            text names key, value and what is allowed.
    """
    sinks.check(scenario.record)
    # the run's own copy of the scenario must lead to its files from anywhere
    paths = {
        key: str(Path(path).resolve()) for key in ("file", "schedule") if (path := getattr(scenario.topology, key)) is not None
    }
    begun = {} if scenario.init_from is None else {"init_from": str(Path(scenario.init_from).resolve())}
    scenario = scenario.model_copy(update={"topology": scenario.topology.model_copy(update=paths), **begun})
    presets = {name: _with_traces_from_anywhere(own) for name, own in scenario.presets.items()}
    scenario = scenario.model_copy(update={"network": _with_traces_from_anywhere(scenario.network), "presets": presets})
    scenario = _with_counted_agents(scenario, graph)
    spec = env_spec(scenario.env)
    kind = scenario.algorithm.off_policy.representation
    if kind in ("table", "recurrent") and not all(spec.n_discrete):
        raise ScenarioError(
            f"algorithm.off_policy.representation: got {kind!r}; {scenario.env.name} has continuous actions, use network"
        )
    if scenario.algorithm.recipe.is_led and not all(spec.n_discrete):
        raise ScenarioError(
            f"algorithm.critic_scope: got 'central' with target 'q'; values of choices are mixed, and {scenario.env.name} has "
            "continuous actions"
        )
    recipe = scenario.algorithm.recipe
    if spec.presence or any(spec.masked):
        for key, value, is_able in (
            ("algorithm.model", recipe.model, recipe.model == "none"),
            ("algorithm.off_policy.representation", kind, kind in ("network", "table")),
        ):
            if not is_able:
                raise ScenarioError(
                    f"{key}: got {value!r}; in {scenario.env.name} agents may end before the others or have action masks, which "
                    "this does not know (env.presence=false, if agents only end together)"
                )
        for name in ("joint", "bootstrap"):
            if recipe.is_led and getattr(scenario.network.codec, name) == "int8":
                raise ScenarioError(
                    f"network.codec.{name}: got 'int8', which rounds small numbers to 0; expected another where observations of "
                    f"{scenario.env.name} tell the central learner which actions can be taken and which agents take part"
                )
    if scenario.compute.agents and len(scenario.compute.agents) != spec.n_agents:
        raise ScenarioError(
            f"compute.agents: got {len(scenario.compute.agents)} devices; this {scenario.env.name} has "
            f"{spec.n_agents} agents, and each has one"
        )
    if scenario.algorithm.share_policy:
        for name, widths in (("observe", spec.obs_dims), ("act", spec.act_dims), ("choose", spec.n_discrete)):
            if len(set(widths)) > 1:
                raise ScenarioError(
                    f"algorithm.share_policy: got true; agents of this {scenario.env.name} {name} "
                    f"differently ({', '.join(map(str, widths))}), so no policy fits all"
                )
    if graph is None:
        graph = build(scenario.topology, spec.n_agents, spec.edges)
    own_limit = scenario.algorithm.cost_limit
    limits = spec.cost_limits if own_limit is None else (own_limit,) * spec.n_costs
    deployment = Deployment(
        obs_dims=spec.obs_dims,
        act_dims=spec.act_dims,
        n_discrete=spec.n_discrete,
        one_hot=spec.one_hot,
        masked=spec.masked,
        presence=spec.presence,
        cost_limits=limits,
        dt=spec.dt,
        alive_bonus=spec.alive_bonus,
        horizon=spec.horizon,
        first_limits=_first_limits(scenario, spec.horizon) if weights is None else (),
        **graph_fields(graph),
        critic_edges=_critic_edges(scenario, spec.n_agents) if weights is None else (),
        learns=weights is None,
        weights=None if weights is None else str(weights.resolve()),
        samples=weights is not None and scenario.evaluation.draws(limited=bool(limits)),
        evaluate_rounds=_evaluate_rounds(scenario, spec.horizon) if weights is None else 0,
    )
    _check_consensus(scenario, deployment)
    if scenario.algorithm.shares_budget and not (spec.own_costs and limits):
        raise ScenarioError(
            f"algorithm.constraint_scope: got 'consensus'; in this {scenario.env.name} agents have no limited costs of their own "
            "to share (env.cost=local, where the world has them)"
        )
    if (largest := largest_peer_body(scenario, deployment)) > MAX_ARRAY_BYTES:
        raise ScenarioError(
            f"env.num_envs: got {scenario.env.num_envs} with rollout.steps={scenario.rollout.steps}; the largest message of a "
            f"round would have {largest:,} bytes, and at most {MAX_ARRAY_BYTES:,} are taken"
        )
    # raises if the links cannot be had
    schedule = Schedule(scenario.network, deployment.wires(), deployment.seed(scenario), scenario.presets)
    for edge, delay_ms in zip(deployment.edges, deployment.edge_latency_ms, strict=False):
        if delay_ms is not None:
            schedule.segments(*edge)  # raises if the delay of the file does not go with the jitter of the network
    if weights is not None:
        _check_weights(weights, spec.n_agents)
        return Plan(scenario, spec, deployment)
    if scenario.init_from is not None:
        origin = origin or Path(scenario.init_from)
        check_origin(origin, scenario, deployment)
    return Plan(scenario, spec, deployment, origin)


def _check_consensus(scenario: Scenario, deployment: Deployment) -> None:
    """Make sure that the networks of all agents which neighbours average are of one size."""  # noqa: DOC501  (what `plan` raises)
    recipe, sizes = scenario.algorithm.recipe, sizes_of(scenario, deployment)
    if recipe.consensus == "none":
        return
    compared: dict[str, Sequence[int]] = {"critics take": sizes.critic_widths} if recipe.averages_critic else {}
    if recipe.averages_policy:
        compared |= {
            "actors take": sizes.actor_widths,
            "agents give": deployment.act_dims,
            "agents choose of": deployment.n_discrete,
        }
    for what, widths in compared.items():
        if len(set(widths)) > 1:
            raise ScenarioError(
                f"algorithm.consensus: got {recipe.consensus!r}; expected networks of one size, but {what} "
                f"{' and '.join(f'{width} numbers ({names})' for width, names in _by_width(widths, deployment).items())}"
            )
    if (numbers := averaged(scenario, deployment)) > MAX_WEIGHTS:
        raise ScenarioError(
            f"algorithm.hidden: got {list(scenario.algorithm.hidden)} with algorithm.consensus={recipe.consensus}; an agent's "
            f"networks would have {numbers:,} numbers, and at most {MAX_WEIGHTS:,} are averaged"
        )


def _by_width(widths: Sequence[int], deployment: Deployment) -> dict[int, str]:
    """The agents of each width, the first few by name."""
    found: dict[int, list[str]] = {}
    for agent, width in enumerate(widths):
        found.setdefault(width, []).append(str(deployment.called(agent)))
    return {
        width: f"agent{'s' if len(names) > 1 else ''} {', '.join(names[:NAMED])}{', …' if len(names) > NAMED else ''}"
        for width, names in found.items()
    }


def _evaluate_rounds(scenario: Scenario, horizon: int) -> int:
    """Every how many rounds policies are evaluated; 0: never."""
    asked = scenario.evaluation.every_rounds
    if asked is not None:
        return asked
    if scenario.clock == "wall":
        return 0
    steps = scenario.n_rounds * scenario.rollout.steps
    times = min(MOST_EVALUATIONS, max(1, int(EVALUATED_FRAC * steps / horizon)))
    return -(-scenario.n_rounds // times)


def frozen(ready: Plan, weights: Path, *, copies: int, episodes: int, chooses: bool = False) -> Plan:
    """The plan of an evaluation: the team of a run on its graph and its links, as it is in a checkpoint, to stay so.

    Args:
        ready: The run's plan, or that of the same team under other settings.
        weights: Checkpoint folder.
        copies: Environments at once.
        episodes: At least how many; rounded up to what all copies play.
        chooses: Whether it helps to choose the best policies of the run.

    Raises:
        ScenarioError: the checkpoint lacks an agent, or its weights are not finite.
    """
    _check_weights(weights, ready.spec.n_agents)
    asked, horizon = ready.scenario, ready.spec.horizon
    scenario = asked.model_copy(
        update={
            "env": asked.env.model_copy(update={"num_envs": copies}),
            "rollout": asked.rollout.model_copy(update={"steps": horizon}),
            "budget": Budget(env_steps=-(-episodes // copies) * horizon * copies),
            "algorithm": asked.algorithm.model_copy(update={"minibatches": 1}),  # however few samples: none is learned from
            "record": asked.record.model_copy(update={"state_rounds": 0, "checkpoint_rounds": 0}),
        }
    )
    deployment = ready.deployment.model_copy(
        update={
            "critic_edges": (),
            "learns": False,
            "weights": str(weights.resolve()),
            "samples": ready.draws,
            "chooses": chooses,
            "evaluate_rounds": 0,
            "first_limits": (),
            "resumed_after": None,
        }
    )
    return Plan(scenario, ready.spec, deployment)


def _first_limits(scenario: Scenario, horizon: int) -> tuple[int, ...]:
    """Steps after which each copy's first episode is truncated, so that a round has samples of every phase of an episode.

    Copies that start together and never fall reach every phase together; where an episode is longer than a round, a round then
    has samples of one phase alone. Nothing (the horizon for all) where a round is at least as long as an episode.
    """
    copies = scenario.env.num_envs
    if not scenario.env.stagger or horizon <= scenario.rollout.steps:
        return ()
    return tuple(-(-horizon * (copy + 1) // copies) for copy in range(copies))


def plan_of(source: str, scenario: Scenario) -> Plan:
    """The plan of a scenario that was read from `source`; a run's own file repeats with the graph and the weights that it kept.

    Raises:
        ValueError: as `plan`, or what a run has kept cannot be read.
    """
    return plan(scenario, graph=kept_graph(source, scenario), origin=kept_origin(source, scenario))


def kept_graph(source: str, asked: Scenario) -> nx.Graph | None:
    """The graph of the run whose scenario file `source` is, if that run's world and topology are asked for; else None.

    A graph may have come from a file that is gone, has changed, or lies on another machine.

    Raises:
        ValueError: what the run has kept cannot be read.
    """
    path = Path(source)
    if path.name != SCENARIO_FILE or not (path.parent / DEPLOYMENT_FILE).is_file():
        return None
    had, asks = ((one.topology, one.env.name, env_spec(one.env).edges) for one in (load(source), asked))
    return Deployment.read(path.parent).graph() if had == asks else None


def _with_counted_agents(scenario: Scenario, graph: nx.Graph | None) -> Scenario:
    """The scenario with a number of agents, if its world can have any and it says none: that of the graph, where one is given.

    Raises:
        ScenarioError: the graph's file cannot be read, or the world cannot have so many agents.
    """
    env, topology = scenario.env, scenario.topology
    if not isinstance(env, TeamEnv) or env.agents is not None:
        return scenario
    if graph is None and topology.kind != "file":
        return scenario.model_copy(update={"env": env.model_copy(update={"agents": env.default_agents})})
    count = len(read_graph(topology)) if graph is None else len(graph)
    try:
        counted = type(env).model_validate({**env.model_dump(), "agents": count})
    except ValidationError:
        raise ScenarioError(f"topology.file: got a graph of {count} nodes; {env.name} cannot have so many agents") from None
    return scenario.model_copy(update={"env": counted})


def _check_weights(weights: Path, n_agents: int) -> None:
    if missing := without_weights(weights, n_agents):
        raise ScenarioError(f"{weights}: no stored weights of agents {missing}")
    if diverged := with_weights_not_finite(weights, n_agents):
        raise ScenarioError(
            f"{weights}: weights of agents {diverged} are not finite, so this team has diverged; evaluate one stored before "
            "(record.checkpoint_rounds, --checkpoint)"
        )


def retold(run_dir: Path, asked: Scenario) -> Plan:
    """The plan of a run's team under other settings: on the graph that the run has kept, unless they ask for another.

    Raises:
        ScenarioError: there would be other agents, other actions or other policies, or an agent would see more or fewer
            numbers than its policy takes. Another ValueError: as `plan`.
    """
    trained, before = load(str(run_dir / SCENARIO_FILE)), Deployment.read(run_dir)
    ready = plan_of(str(run_dir / SCENARIO_FILE), asked)
    now = ready.deployment
    if before.n_agents != now.n_agents or before.act_dims != now.act_dims or before.n_discrete != now.n_discrete:
        raise ScenarioError(
            f"env: got {asked.env.name} with actions of {_actions(now)}; the team was trained in {trained.env.name} with actions "
            f"of {_actions(before)}"
        )
    learnt, wanted = (one.algorithm.model_dump(exclude={"cost_limit"}) for one in (trained, asked))
    for key in learnt:
        if learnt[key] != wanted[key]:
            raise ScenarioError(f"algorithm.{key}: got {wanted[key]}; the team was trained with {learnt[key]} and stays as it is")
    for agent, (had, has) in enumerate(zip(_seen(trained, before), _seen(asked, now), strict=True)):
        if had != has:
            raise ScenarioError(
                f"kappa: got {asked.kappa} on a graph of kind {asked.topology.kind}; agent {agent} would see {has} numbers, and "
                f"its policy was trained on {had} (kappa={trained.kappa}, topology.kind={trained.topology.kind})"
            )
    return ready


def _actions(deployment: Deployment) -> str:
    """How many actions, or numbers of an action, each agent has."""
    sizes = zip(deployment.n_discrete, deployment.act_dims, strict=True)
    words = dict.fromkeys(f"one of {count}" if count else f"{width} numbers" for count, width in sizes)
    return f"{deployment.n_agents} agents ({', '.join(words)} each)"


def _seen(scenario: Scenario, deployment: Deployment) -> list[int]:
    """How many numbers each agent's policy takes in."""
    scope, n = scenario.algorithm.recipe.actor_scope, deployment.n_agents
    near = visible(deployment.graph(), scenario.kappa, scenario.kappa_unit)
    return [sum(deployment.obs_dims[j] for j in scope_agents(scope, i, near[i], n)) for i in range(n)]


def reopened(run_dir: Path, round_: int | None, scenario: Scenario | None = None) -> Plan:
    """The plan of a run that goes on from its stored states of a round, or that is over: on the graph that it was begun with.

    Args:
        run_dir: The run's directory.
        round_: Which round; None: the run is over.
        scenario: Its scenario with a larger budget; None: as it is.

    Raises:
        ScenarioError: a file that the run would write is a link to somewhere else. Another ValueError: what the run's
            directory says of it cannot be read, or a sink lacks its package.
    """
    for path in (run_dir / DATABASE, *(run_dir / LOGS).glob("*")):
        if path.is_symlink():
            raise ScenarioError(f"{path}: a symbolic link; the run would write where it leads, so put the file itself there")
    scenario = scenario or load(str(run_dir / SCENARIO_FILE))
    sinks.check(scenario.record)
    deployment = Deployment.read(run_dir).model_copy(update={"resumed_after": round_})
    return Plan(scenario, env_spec(scenario.env), deployment)


def _critic_edges(scenario: Scenario, n: int) -> tuple[int, ...]:
    if scenario.algorithm.recipe.critic_scope != "central":
        return ()
    at = scenario.central.at
    if at is None:
        return tuple(range(n))
    if at >= n:
        raise ScenarioError(f"central.at: got {at}; the agents are 0..{n - 1}")
    return (at,)


def _with_traces_from_anywhere(section: _Links) -> _Links:
    """A section whose `trace:PATH` presets lead there from any working directory."""
    found: dict[str, object] = {}
    if section.preset is not None and section.preset.startswith(TRACE):
        found["preset"] = TRACE + str(Path(section.preset.removeprefix(TRACE)).resolve())
    if isinstance(section, Network):
        found["edges"] = tuple(_with_traces_from_anywhere(edge) for edge in section.edges)
        found["events"] = tuple(
            _with_traces_from_anywhere(event) if isinstance(event, Change) else event for event in section.events
        )
    return section.model_copy(update=found)


def check_start(ready: Plan, *, in_process: bool) -> None:
    """Make sure that a plan can be carried out here and now.

    Raises:
        ScenarioError: in one process there is no real time; or as `check_ports` and `provide_descriptors`.
        RegistryError: other processes cannot import what the scenario names.
    """
    if not in_process:
        check_importable(ready.scenario)
        check_ports(ready.scenario, ready.deployment.n_nodes)
        provide_descriptors(ready)
    elif ready.scenario.clock == "wall":
        raise ScenarioError("clock: got 'wall'; in one process (--in-process) there is only virtual time")


def check_ports(scenario: Scenario, n_nodes: int) -> None:
    """Make sure that the sockets of a scenario can be had: its fixed tcp ports, or short enough ipc addresses.

    Raises:
        ScenarioError: the host is not this machine's, a port is taken or beyond 65535.
    """
    network = scenario.network
    if network.transport == "ipc":
        folder = tempfile.gettempdir()
        if len(os.fsencode(folder)) > MAX_FOLDER_BYTES:
            raise ScenarioError(
                f"TMPDIR: got {folder}; a socket's path holds 107 bytes, so give one of at most {MAX_FOLDER_BYTES}, "
                "or network.transport=tcp"
            )
        return
    last = network.port + n_nodes + 1
    if last > 65535:
        raise ScenarioError(f"network.port: got {network.port}; {n_nodes + 2} ports from there end at {last}, above 65535")
    for port in range(network.port, last + 1) if network.port else (0,):
        with socket.socket() as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            try:
                probe.bind((network.host, port))
            except OSError as error:
                if port == 0 or error.errno != errno.EADDRINUSE:
                    raise ScenarioError(
                        f"network.host: got {network.host!r}; sockets cannot listen there, port {port} ({error.strerror})"
                    ) from None
                raise ScenarioError(
                    f"network.port: port {port} on {network.host} cannot be used ({error.strerror}); "
                    f"this run needs {network.port}..{last}, or network.port=0 for any free ones"
                ) from None


def provide_descriptors(ready: Plan) -> None:
    """Make sure that every process of a run can open as many files and sockets as it needs, as far as the system allows.

    A process that has none left cannot write what it should remember. On tcp, connections of strangers take some for a while, so
    all of them get as many as they may have.

    Raises:
        ScenarioError: the hard limit is too low.
    """
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    most = MANY_DESCRIPTORS if hard == resource.RLIM_INFINITY else min(hard, MANY_DESCRIPTORS)
    if (needed := descriptors(ready)) > most:
        raise ScenarioError(
            f"ulimit -n: got {most}; {ready.deployment.n_agents} agents on these links need {needed} open files in one process, "
            f"so raise the limit (ulimit -n {needed}, or where the system sets limits), or take fewer agents"
        )
    if soft != resource.RLIM_INFINITY and soft < most:
        resource.setrlimit(resource.RLIMIT_NOFILE, (most, hard))  # the processes that are started inherit it


def descriptors(ready: Plan) -> int:
    """The most descriptors that a process of a run needs."""
    scenario, wires = ready.scenario, ready.deployment.wires()
    most: int = max(degree for _, degree in wires.degree)
    if scenario.routing == "direct":
        near = visible(ready.deployment.graph(), scenario.kappa, scenario.kappa_unit)
        most = max(most, *(len(ball) for ball in near))
    # the command and the world have a connection to each node; a node has two to each peer, and a socket
    size = pack_size(scenario.supervision.agents_per_process, ready.deployment.n_agents)
    packed = 0 if size == 1 else PACKED_DESCRIPTORS * size
    return OWN_DESCRIPTORS + max(ready.deployment.n_nodes + 1, packed + 3 * most * size)


def first_free(places: Iterable[Path]) -> Path:
    """The first of the places that does not exist yet, made; no two runs get the same.

    Raises:
        ScenarioError: it cannot be made, or all exist.
    """
    for place in places:
        try:
            place.mkdir(parents=True)
        except FileExistsError:
            continue
        except OSError as error:
            raise ScenarioError(f"cannot make {place} ({error.strerror}); --out chooses another place") from None
        return place
    raise ScenarioError("--out: every place tried is taken")


def make_run_dir(run_dir: Path, ready: Plan) -> None:
    """Create a run's directory with everything its processes read.

    Raises:
        ScenarioError: the directory holds something already, or cannot be written.
        ValueError: the scenario wants encryption and this ZeroMQ has none.
    """
    try:
        if run_dir.exists() and (not run_dir.is_dir() or any(run_dir.iterdir())):
            raise ScenarioError(f"--out: {run_dir} already holds something; give a new or empty directory")
        for folder in (run_dir, run_dir / LOGS, run_dir / CHECKPOINTS):
            folder.mkdir(parents=True, exist_ok=True)
        (run_dir / SCENARIO_FILE).write_text(dump(ready.scenario), encoding="utf-8")
        ready.deployment.model_copy(update={"run": secrets.token_hex(16)}).write(run_dir)
        if is_secured(ready.scenario.network):
            make_keys(run_dir, ready.deployment.n_nodes)
        in_force = outlook(ready.scenario.env, ready.deployment.graph()).in_force
        facts = manifest(ready.scenario) | ({"in_force": in_force} if in_force else {})
        if ready.origin is not None:
            facts["init_from"] = {"path": ready.scenario.init_from, "sha256": keep_origin(ready.origin, run_dir)}
        (run_dir / MANIFEST_FILE).write_text(json.dumps(facts, indent=1), encoding="utf-8")
    except OSError as error:
        raise ScenarioError(f"--out: cannot write {run_dir} ({error.strerror})") from None


def changes_since(run_dir: Path, scenario: Scenario) -> list[str]:
    """In what the present versions, commit and host differ from those with which a run was begun, by name."""
    try:
        before = read_json(run_dir / MANIFEST_FILE)
    except ScenarioError:
        return [MANIFEST_FILE]
    now = manifest(scenario)
    pairs = [(name, before.get(name), now[name]) for name in ("commit", "python", "machine")]
    packages = before.get("packages")
    packages = packages if isinstance(packages, dict) else {}
    pairs += [(name, packages.get(name), version) for name, version in _versions(_PACKAGES)]
    pairs += [
        (f"{plugin.kind} {plugin.name}", _origin(before, plugin.kind, plugin.name), plugin.origin) for plugin in used_by(scenario)
    ]
    return [f"{name} {str(old)[:60]} → {new}" for name, old, new in pairs if old != new]


def _origin(facts: Mapping[str, Any], kind: str, name: str) -> str | None:
    """What a manifest says of where a name came from."""
    plugins = facts.get("plugins")
    for one in plugins if isinstance(plugins, list) else ():
        if isinstance(one, dict) and (one.get("kind"), one.get("name")) == (kind, name):
            return str(one.get("origin"))
    return None


def register_as(run_dir: Path) -> None:
    """Register the names that a run's program had registered, as its manifest has them: then code of their modules may run.

    Args:
        run_dir: The run's directory.

    Raises:
        ScenarioError: the manifest cannot be read.
        RegistryError: a name stands for other code here.
    """
    path = run_dir / MANIFEST_FILE
    plugins = read_json(path).get("plugins", []) if path.is_file() else []
    try:
        for one in plugins:
            registry = REGISTRIES[one["kind"]]
            if one["target"] and one["name"] not in registry.names():
                registry.register(one["name"], one["target"])
    except (LookupError, TypeError, AttributeError):
        raise ScenarioError(f"{path}: cannot be read (it is not as a run writes it)") from None


def manifest(scenario: Scenario) -> dict[str, object]:
    """Facts by which a run can be told from another: versions, seed, commit, host."""
    return {
        "scenario": scenario.name,
        "seed": scenario.seed,
        "commit": _commit(),
        "python": platform.python_version(),
        "packages": dict(_versions(_PACKAGES)),
        "plugins": [asdict(plugin) for plugin in used_by(scenario)],
        "system": platform.system(),
        "machine": platform.machine(),
        "cores": os.cpu_count(),
    }


def _versions(names: Iterable[str]) -> Iterable[tuple[str, str]]:
    for name in names:
        try:
            yield name, metadata.version(name)
        except metadata.PackageNotFoundError:
            yield name, "not installed"


def _commit() -> str:
    root = Path(__file__).resolve().parents[2]
    if not (root / ".git").exists():
        return "unknown"
    try:
        found = subprocess.run(
            ["git", "-C", str(root), "rev-parse", "HEAD"], capture_output=True, text=True, timeout=5, check=False
        )
    except (OSError, subprocess.TimeoutExpired):
        return "unknown"
    return found.stdout.strip() or "unknown"
