"""The command `kappahop`."""

# The guard runs before anything else of ours is imported: see coordinator/cli/guard.py.
from coordinator.cli import guard

guard.check_python()
guard.check_origin()
guard.end_when_interrupted()

import json  # noqa: E402
import shlex  # noqa: E402
import signal  # noqa: E402
import sys  # noqa: E402
from collections.abc import Iterator  # noqa: E402
from dataclasses import asdict  # noqa: E402
from importlib import metadata  # noqa: E402
from pathlib import Path  # noqa: E402
from typing import TYPE_CHECKING, Annotated  # noqa: E402

import typer  # noqa: E402
from rich.table import Table  # noqa: E402
from rich.text import Text  # noqa: E402

from coordinator.cli import study  # noqa: E402
from coordinator.cli.examples import epilog  # noqa: E402
from coordinator.cli.options import AllowCodeOption, InProcessOption, ScenarioArgument, refusals  # noqa: E402
from coordinator.cli.options import refuse as _refuse  # noqa: E402
from coordinator.cli.terminal import replace_what_cannot_be_shown, terminal, warning  # noqa: E402
from coordinator.exit_codes import EXIT_DIVERGED, EXIT_FAILED, EXIT_INPUT, EXIT_INTERRUPTED  # noqa: E402
from scenarios.loading import load  # noqa: E402
from scenarios.plugins import allowance  # noqa: E402
from scenarios.registry import nearest  # noqa: E402
from scenarios.schema import Scenario  # noqa: E402
from topology.deployment import SCENARIO_FILE  # noqa: E402
from topology.process import StopFlag, StopRequested, die_with_starter, stopped_by  # noqa: E402

if TYPE_CHECKING:
    from coordinator.records.plan import Plan
    from coordinator.run.metrics import Report
    from coordinator.study.runs import Run

app = typer.Typer(
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode="markdown",
    context_settings={"help_option_names": ["-h", "--help"]},
    help="Decentralised multi-agent reinforcement learning over an edge network: every agent a process, "
    "κ-hop messages over ZeroMQ.",
    epilog="Start with `kappahop run quickstart`.",
)


def _tell_version(asked: bool) -> None:
    if asked:
        typer.echo(f"kappahop {metadata.version('kappahop')}")
        raise typer.Exit


@app.callback()
def _whole(
    version: Annotated[
        bool, typer.Option("--version", callback=_tell_version, is_eager=True, help="Print the version and exit.")
    ] = False,
) -> None: ...


OverridesArgument = Annotated[
    list[str] | None,
    typer.Argument(
        metavar="[KEY=VALUE]...", help="Overrides, e.g. `kappa=2 env.num_envs=20 topology.kind=ring`.", show_default=False
    ),
]
SeedOption = Annotated[int | None, typer.Option(help="Seed; the same as `seed=N`.", show_default=False)]


@app.command()
def run(
    scenario: ScenarioArgument,
    overrides: OverridesArgument = None,
    seed: SeedOption = None,
    out: Annotated[
        Path | None, typer.Option(help="Run directory; new or empty. Default: runs/SCENARIO-sSEED-TIME.", show_default=False)
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON object at the end instead of tables.")] = False,
    quiet: Annotated[bool, typer.Option("--quiet", "-q", help="No progress.")] = False,
    by_hand: Annotated[
        str,
        typer.Option(metavar="AGENTS", help="Agents whose nodes you start yourself, e.g. `2,3`; prints how.", show_default=False),
    ] = "",
    in_process: InProcessOption = False,
    allow_code: AllowCodeOption = False,
) -> None:
    """Train the agents of a scenario, one process each.

    Ctrl-C stops cleanly and keeps what was recorded. Exit code 0: done; 1: a process failed; 2: wrong input; 3: the run
    diverged, its numbers are no longer finite; 130: interrupted.
    """
    from coordinator.records.plan import plan_of
    from coordinator.session import new_folders

    chosen = _load(scenario, overrides, seed, allow_code=allow_code)
    with refusals():
        ready = plan_of(scenario, chosen)
    _execute(ready, out or new_folders(chosen), as_json=as_json, quiet=quiet, by_hand=by_hand, in_process=in_process)


@app.command()
def evaluate(
    folder: Annotated[
        Path, typer.Argument(metavar="RUN", help="A finished run's directory; with --policy a scenario too.", show_default=False)
    ],
    overrides: Annotated[
        list[str] | None,
        typer.Argument(
            metavar="[KEY=VALUE]...",
            help="Overrides of world and links, e.g. `network.preset=wifi-busy env.num_envs=4`; the policies stay as they are.",
            show_default=False,
        ),
    ] = None,
    seed: SeedOption = None,
    episodes: Annotated[int, typer.Option(min=1, help="At least so many episodes.")] = 20,
    out: Annotated[
        Path | None, typer.Option(help="Directory of the evaluation. Default: RUN/evaluation-1, -2, …", show_default=False)
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON object at the end instead of tables.")] = False,
    quiet: Annotated[bool, typer.Option("--quiet", "-q", help="No progress.")] = False,
    in_process: InProcessOption = False,
    checkpoint: Annotated[
        str, typer.Option(help="Which weights: `final`, `best` (by its evaluations), or `round-N` of an unfinished run.")
    ] = "final",
    film: Annotated[
        Path | None, typer.Option(help="Film of the world and its traffic to make, .gif or .mp4.", show_default=False)
    ] = None,
    policy: Annotated[
        str | None,
        typer.Option(help="Play this baseline of the world instead of a trained team, e.g. `none`.", show_default=False),
    ] = None,
    allow_code: AllowCodeOption = False,
) -> None:
    """Run a trained team without learning, and report its return and cost.

    Policies take their mean or likeliest actions. Where the world's cost has a limit they draw their actions, as in training.
    `evaluation.deterministic=true` or `=false` decides otherwise.

    With `--policy` a baseline of the world plays instead, as many episodes at once; it sends no messages. Of a run, what it
    came to is kept in RUN/baselines.json, and reports draw it as a line.
    """
    if policy is not None:
        unused = {"--out": out, "--film": film, "--in-process": in_process, "--checkpoint": checkpoint != "final"}
        for option in (name for name, given in unused.items() if given):
            _refuse(f"{option}: means nothing with --policy, which needs no folder, weights or processes")
        _play(str(folder), _load(_source(folder), overrides, seed, allow_code=allow_code), policy, episodes, as_json=as_json)
        return
    from coordinator.session import evaluation, evaluation_folders, weights_of
    from coordinator.study.sweep import one_run

    with refusals():
        one_run(folder)
        weights_of(folder, checkpoint)
    asked = _load(str(folder / SCENARIO_FILE), overrides, seed, allow_code=allow_code)
    with refusals():
        if film is not None:
            from coordinator.report.film import check

            check(asked, film)
        ready = evaluation(folder, asked, checkpoint=checkpoint, episodes=episodes)
        if film is not None:
            from coordinator.report.film import try_out

            try_out(ready)
    _execute(ready, out or evaluation_folders(folder), as_json=as_json, quiet=quiet, in_process=in_process)
    if film is None:
        return
    from coordinator.report import film as filming

    with refusals():
        filming.film(ready, film)
    terminal(stderr=True).print(f"film: {film}", highlight=False, soft_wrap=True, markup=False)


def _source(place: Path) -> str:
    """Where a scenario is read from: a run's folder has its own."""
    return str(place / SCENARIO_FILE if place.is_dir() else place)


@refusals()
def _play(place: str, asked: Scenario, policy: str, episodes: int, *, as_json: bool) -> None:
    """Play a baseline, print what it came to, and keep it where the place is a run."""
    from coordinator.cli.progress import baseline
    from coordinator.evaluation.baselines import keep, play
    from coordinator.records.plan import plan_of

    ready = plan_of(_source(Path(place)), asked)
    found = play(ready, policy, episodes)
    if Path(place).is_dir():
        keep(found, Path(place), ready)
    if as_json:
        typer.echo(json.dumps({"scenario": asked.name, "seed": asked.seed, **asdict(found)}))
    else:
        terminal().print(baseline(found, ready))


@app.command()
def resume(
    folder: Annotated[Path, typer.Argument(metavar="RUN", help="A run's directory.", show_default=False)],
    overrides: Annotated[
        list[str] | None,
        typer.Argument(
            metavar="[KEY=VALUE ...]",
            help="A larger budget.env_steps, or another supervision.agents_per_process; other settings stay.",
            show_default=False,
        ),
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON object at the end instead of tables.")] = False,
    quiet: Annotated[bool, typer.Option("--quiet", "-q", help="No progress.")] = False,
    in_process: InProcessOption = False,
    allow_code: AllowCodeOption = False,
) -> None:
    """Go on with a run that was interrupted or failed, from the last state that it stored (`record.state_rounds`).

    It ends with the same weights and the same ledger as if it had never stopped. What it had recorded beyond that state comes
    again. Of a run that is finished it prints the results. With a larger budget a finished run goes on too: step sizes that
    fall linearly go on falling from the value of that state, to 0 at the new end. Exit codes as of `run`.
    """
    from coordinator.records.plan import register_as
    from coordinator.run.metrics import report_of
    from coordinator.session import resumption
    from coordinator.study.runs import Run, reading
    from coordinator.study.sweep import one_run

    with refusals():
        one_run(folder)
        if allow_code:
            register_as(folder)
        found = resumption(folder, overrides or ())
    if found.plan is None:
        if found.lacks_evaluations:
            _make_missing_evaluations(folder, quiet=quiet)
        run = Run(folder, load(str(folder / SCENARIO_FILE)))
        with refusals(), reading(folder):
            _tell(run, {**report_of(run.metrics), "run_dir": str(folder)}, as_json=as_json)
        return
    for text in found.skipped:
        terminal(stderr=True).print(warning(f"{text}; the state before it is taken"), soft_wrap=True)
    if found.changed and not quiet:
        terminal(stderr=True).print(
            warning(f"not as the run was begun ({', '.join(found.changed)}): it may not end as it would have"),
            highlight=False,
            soft_wrap=True,
        )
    _execute(found.plan, folder, as_json=as_json, quiet=quiet, in_process=in_process)


def _make_missing_evaluations(folder: Path, *, quiet: bool) -> None:
    from coordinator.cli.progress import Display
    from coordinator.records.database import RecordingError
    from coordinator.session import Spectator, make_missing_evaluations
    from coordinator.study.runs import Run

    with refusals(), refusals(RecordingError, code=EXIT_FAILED):
        steps = Run(folder, load(str(folder / SCENARIO_FILE))).planned_steps
        with Display(terminal(stderr=True), total_steps=steps, quiet=quiet) as display:
            make_missing_evaluations(folder, Spectator(evaluation=display.watch_evaluations))


VERBS = (
    study.sweep,
    study.compare,
    study.report,
    study.figures,
    study.watch,
    study.export,
    study.decay,
)
for verb in VERBS:
    app.command()(verb)


@app.command()
@refusals()
def graph(
    scenario: ScenarioArgument,
    overrides: OverridesArgument = None,
    out: Annotated[
        Path | None, typer.Option(help="Picture to write, .svg or .png. Default: SCENARIO-graph.svg.", show_default=False)
    ] = None,
    allow_code: AllowCodeOption = False,
) -> None:
    """Print how many agents each one receives from for every κ, and draw the communication graph.

    Peers in all is what a step's STATE traffic is proportional to. Turns: how many agents learn one after another in a round with
    factor: khop and ascending order; agents further apart than κ learn at the same time.
    """
    from coordinator.records.plan import plan_of
    from envs.registry import outlook
    from topology.graph.drawing import draw
    from topology.graph.neighbourhood import ball, critical_path, diameter, visible

    chosen = _load(scenario, overrides, None, allow_code=allow_code)
    ready = plan_of(scenario, chosen)
    net = ready.deployment.graph()
    n, across, edges = len(net), diameter(net), net.number_of_edges()
    counted = f"{n} agents, {edges} edge{'' if edges == 1 else 's'}, diameter {across}"
    table = Table(title=f"{chosen.name}: {chosen.topology.kind}, {counted}")
    for heading in ("κ", "ball sizes, by agent", "smallest", "mean", "largest", "peers in all", "turns"):
        table.add_column(heading, justify="left" if heading.startswith("ball") else "right")
    for kappa in range(across + 1):
        sizes = [len(ball(net, i, kappa)) for i in range(n)]
        table.add_row(
            f"{kappa}{' ◂' if kappa == min(chosen.kappa, across) else ''}",
            _shortened(sizes),
            str(min(sizes)),
            f"{sum(sizes) / n:.2f}",
            str(max(sizes)),
            str(sum(sizes) - n),
            str(critical_path(range(n), visible(net, kappa, "hops"))),
        )
    picture = out or Path(f"{chosen.name}-graph.svg")
    try:
        draw(net, picture, f"{chosen.name}: {chosen.topology.kind}, κ = {chosen.kappa}")
    except OSError as error:
        _refuse(f"--out: cannot write {picture} ({error.strerror})")
    except ValueError as error:
        _refuse(f"--out: {error}")
    console = terminal()
    console.print(table)
    for note in ready.deployment.notes:
        console.print(note, highlight=False, soft_wrap=True, markup=False)
    told = outlook(chosen.env, net)
    for fact in told.facts:
        console.print(fact, highlight=False, soft_wrap=True, markup=False)
    for doubt in told.doubts:
        console.print(warning(doubt), highlight=False, soft_wrap=True)
    console.print(f"picture: {picture}", highlight=False, soft_wrap=True, markup=False)


@app.command()
@refusals()
def links(
    scenario: ScenarioArgument,
    overrides: OverridesArgument = None,
    presets: Annotated[bool, typer.Option("--presets", help="Show every preset beside the scenario's own links.")] = False,
    allow_code: AllowCodeOption = False,
) -> None:
    """Show what links do to each kind of message, and what cannot work on them, before a run starts.

    Sizes are wire bytes of one deployed copy. Airtime is for how long the link is busy with it. Delays are those of half, 90 %
    and 99 % of the messages that meet an idle link and need no retransmission. Loss is the probability that a message loses a
    fragment: datagrams are then lost, reliable messages (r) repeat it.
    """
    from coordinator.cli.progress import crossings
    from coordinator.records.plan import plan_of
    from coordinator.study.forecast import link_specs, loads, objections
    from topology.link.presets import PRESETS

    chosen = _load(scenario, overrides, None, allow_code=allow_code)
    ready = plan_of(scenario, chosen)
    specs = link_specs(ready)
    of = loads(ready)
    console = terminal()
    if not of:
        console.print(f"{chosen.name}: with κ = {chosen.kappa} and these scopes no agent sends anything", highlight=False)
        return
    called = ready.deployment.called
    named = [
        (chosen.network.preset if len(specs) == 1 else f"{len(places)} links, first {called(src)}→{called(dst)}", spec)
        for spec, places in specs.items()
        for _, (src, dst) in places[:1]
    ]
    if presets:
        named += [(name, preset.spec) for name, preset in PRESETS.items() if name != chosen.network.preset]
    for name, spec in named:
        console.print(crossings(name, spec, of))
        for text in objections(ready, spec, of):
            console.print(warning(text, "  mind:"), highlight=False, soft_wrap=True)


@app.command()
def algorithms() -> None:
    """List the algorithms by axis, and what agents that follow them send each other.

    Where "central critic" says "needed", the coordinator learns for all and sends all agents weights to act by. In all other
    rows every agent learns by itself. Where it says "may", the override algorithm.critic_scope=central gives all agents one
    critic that is the coordinator's; of values of actions that makes QMIX.
    """
    from coordinator.cli import progress as display

    console = terminal()
    console.print(display.algorithms(console.width))


@app.command("list")
@refusals()
def list_names(
    what: Annotated[
        str, typer.Argument(metavar="[scenarios|worlds|algorithms|presets|plugins]", help="What to list.", show_default=False)
    ] = "scenarios",
) -> None:
    """List the scenarios that come with kappahop; or worlds, algorithms, link presets, or all names that installed packages add.

    A package adds names by entry points (docs/how-to/own-world.md). Names are listed without importing their code.
    """
    from coordinator.cli import listing

    if what not in listing.LISTS:
        _refuse(f"list: got {what!r}{nearest(what, listing.LISTS)}; expected one of {', '.join(listing.LISTS)}")
    terminal().print(listing.LISTS[what]())


@app.command()
@refusals()
def new(
    kind: Annotated[str, typer.Argument(metavar="world|objective|scenario", help="What to write.", show_default=False)],
    name: Annotated[str, typer.Argument(metavar="NAME", help="Its name, such as my_world.", show_default=False)],
    out: Annotated[Path | None, typer.Option(help="Folder; new or empty. Default: NAME.", show_default=False)] = None,
) -> None:
    """Write a small package to start from, which passes its own tests: a world, an objective with its algorithm, or a scenario.

    `pip install -e NAME` makes its names known, and `pytest NAME` runs its tests.
    """
    from coordinator.cli import new as packages

    if kind not in packages.KINDS:
        _refuse(f"new: got {kind!r}{nearest(kind, packages.KINDS)}; expected one of {', '.join(packages.KINDS)}")
    for path in packages.write(kind, name, out or Path(name)):
        typer.echo(path)


@app.command()
@refusals()
def check(
    kind: Annotated[str, typer.Argument(metavar="world", help="What to check.", show_default=False)],
    name: Annotated[
        str, typer.Argument(metavar="NAME", help="A name of `kappahop list worlds`, or module:attribute.", show_default=False)
    ],
    settings: Annotated[
        list[str] | None,
        typer.Argument(metavar="[KEY=VALUE]...", help="Settings of the world, e.g. `env.agents=3`.", show_default=False),
    ] = None,
    allow_code: AllowCodeOption = False,
) -> None:
    """Play a world for some steps and say in words what of the contract of worlds it does not keep. Exit code 1: something.

    The world plays several times: twice alike, with another seed, with other actions, and taken apart half-way. It says what is
    not as it must be: first of what no agent could use, by agent and step; else by the clauses of the contract.
    """  # noqa: DOC501  (Exit is an exit code)
    from coordinator.records.plan import plan
    from envs.contract import CONTRACT, judge
    from envs.registry import make

    if kind != "world":
        _refuse(f"check: got {kind!r}; expected world")
    words = [f"env.name={name}", "env.num_envs=3", "env.horizon=5", *(settings or ()), "topology.kind=kinematic"]
    ready = plan(_load("quickstart", words, None, allow_code=allow_code))
    env, graph = ready.scenario.env, ready.deployment.graph()
    try:
        share, nature, broken = judge(lambda seed, _: make(env, graph, seed))
    except ValueError as error:
        _refuse(str(error), EXIT_FAILED)
    for sentence in broken:
        typer.echo(f"broken: {sentence}")
    if broken:
        raise typer.Exit(EXIT_FAILED)
    told = {"team": "one reward for all", "sum": "rewards that add up to the team's", "mean": "rewards whose mean is the team's"}
    typer.echo(f"world {name}: all {len(CONTRACT)} clauses hold ({ready.spec.n_agents} agents, {told[share]}, {nature})")


@app.command()
def schema(
    markdown: Annotated[bool, typer.Option("--markdown", help="Print the reference page for people instead.")] = False,
    section: Annotated[str, typer.Option(help="With --markdown: only this section of it, such as network.")] = "",
) -> None:
    """Print the JSON Schema of a scenario, for editors."""
    from scenarios.reference import json_schema
    from scenarios.reference import markdown as page

    if section and section not in Scenario.model_fields:
        _refuse(f"--section: got {section!r}; expected one of {', '.join(Scenario.model_fields)}")
    typer.echo(page(section).rstrip("\n") if markdown else json.dumps(json_schema(), indent=2, ensure_ascii=False))


@app.command()
def doctor() -> None:
    """Check that this machine can run kappahop, and say what to do where it cannot."""  # noqa: DOC501  (Exit is an exit code)
    from coordinator.cli.doctor import checks

    table = Table()
    for heading in ("check", "", "detail"):
        table.add_column(heading)
    found = checks()
    for check in found:
        table.add_row(check.name, Text("ok", "green") if check.ok else Text("fails", "bold red"), check.detail)
    terminal().print(table)
    if not all(check.ok for check in found):
        raise typer.Exit(EXIT_FAILED)


def main() -> None:
    """Entry point of the command."""
    replace_what_cannot_be_shown()
    try:
        die_with_starter()
    except StopRequested:  # the sweep that wants this run is gone
        sys.exit(EXIT_INTERRUPTED)
    signal.signal(signal.SIGTERM, signal.default_int_handler)  # what asks a run to end, asks any other work to end as well
    try:
        code = app(prog_name="kappahop", standalone_mode=False)
    except KeyboardInterrupt:
        code = EXIT_INTERRUPTED
    except Exception as error:
        told = getattr(error, "format_message", None)  # a wrong argument or option; typer gives its errors no public name
        if told is None:
            raise
        if not told():  # no argument at all: the help has been printed
            sys.exit(EXIT_INPUT)
        where = getattr(error, "ctx", None)  # which verb's arguments they were
        _refuse(f"{told()} (see {where.command_path if where else 'kappahop'} --help)")
    if code == EXIT_INTERRUPTED:  # what typer makes of Ctrl-C too; runs and sweeps, which have more to say, have left already
        _refuse("interrupted", code)
    sys.exit(code)


def _execute(
    ready: "Plan",
    place: Path | Iterator[Path],
    *,
    as_json: bool,
    quiet: bool,
    by_hand: str = "",
    in_process: bool = False,
) -> None:
    from coordinator.cli.progress import Display, failure
    from coordinator.session import Session, Spectator
    from coordinator.study.runs import Run

    console, stop = terminal(stderr=True), StopFlag()
    with refusals():
        session = Session(ready, place, in_process=in_process, by_hand=_agents(by_hand, ready.spec.n_agents))
    with session:
        for text in () if quiet else session.doubts:
            console.print(warning(text), highlight=False, soft_wrap=True)
        steps = Run(session.folder, ready.scenario).planned_steps
        asking = stopped_by(signal.SIGINT, signal.SIGTERM, stop=stop, twice_kills=in_process)
        with asking, Display(console, total_steps=steps, quiet=quiet) as display:
            ended = session.run(Spectator(display.watch, display.watch_evaluations, display.say), stop)
    run = Run(ended.folder, ready.scenario)
    if ended.error is None:
        assert ended.metrics is not None, "without an error everything was recorded"
        _tell(run, ended.metrics, as_json=as_json)
        return
    if ended.metrics is not None and ended.has_diverged:
        _tell(run, ended.metrics, as_json=as_json)
    kept = f"; what was recorded is in {ended.folder}" if ended.folder.exists() else ""
    console.print(failure(ended.error + kept), soft_wrap=True)
    allowed = allowance(ready.scenario)
    if ended.can_go_on:
        told = f"to go on: {shlex.join(['kappahop', 'resume', str(ended.folder), *allowed])}"
        console.print(told, highlight=False, soft_wrap=True, markup=False)
    if not ended.interrupted and ready.deployment.learns and (ended.folder / SCENARIO_FILE).is_file():
        again = ["kappahop", "run", str(ended.folder / SCENARIO_FILE), *(["--in-process"] if in_process else []), *allowed]
        console.print(f"replay: {shlex.join(again)}", highlight=False, soft_wrap=True, markup=False)
    sys.exit(EXIT_INTERRUPTED if ended.interrupted else EXIT_DIVERGED if ended.has_diverged else EXIT_FAILED)


def _tell(run: "Run", final: "Report", *, as_json: bool) -> None:
    """Print what a run came to."""
    from coordinator.cli.progress import summary, traffic
    from coordinator.records.database import Results

    results = Results(run.folder)
    if as_json:
        typer.echo(json.dumps(final))
    else:
        plain = terminal()
        if results.quarters():
            plain.print(summary(results, cost_limit=final["cost_limit"]))
        plain.print(traffic(results))
        if run.deployment.learns:
            for told in _judged(final):
                plain.print(told, highlight=False, soft_wrap=True)
        if final["diverged"]:
            plain.print("no return: the run diverged", highlight=False)
        elif final["return_mean"] is None:
            plain.print(f"no episode ended: {final['env_steps'] // run.scenario.env.num_envs:,} steps per copy", highlight=False)
        else:
            played = f"all episodes, {'with drawn actions' if run.deployment.samples else 'without exploration'}"
            over = "the last tenth of the training, exploration included" if run.deployment.learns else played
            progress = "" if final["progress_mean"] is None else f" (progress {final['progress_mean']:.1f})"
            told = f"return {final['return_mean']:.1f}{progress}, cost {final['cost_mean']:.1f} over {over}"
            plain.print(told, highlight=False)
        if final["eval_measures"]:
            means = final["eval_measures"].items()
            figures = ", ".join(f"{name} {'not known' if mean is None else f'{mean:.4g}'}" for name, mean in means)
            plain.print(f"in the evaluation, on average: {figures}", highlight=False, soft_wrap=True, markup=False)
        for verdict in final["limits"] or ():
            plain.print(f"{verdict['text']}.", highlight=False, soft_wrap=True, markup=False)
        plain.print(
            f"{final['env_steps']:,} environment steps in {final['wall_s']:.1f} s ({final['env_steps_per_s']:,.0f} per second), "
            f"{final['bytes_per_agent_step']:.1f} wire bytes per agent and step between agents{_aged(final['mean_age_s'])}; "
            f"results in {final['run_dir']}",
            highlight=False,
            soft_wrap=True,
            markup=False,
        )
    results.close()


def _judged(final: "Report") -> Iterator[str]:
    """What evaluations say of the last policies, and of the best."""
    from coordinator.run.verdict import how_evaluated

    if final["eval_return_mean"] is not None:
        worth = f"return {final['eval_return_mean']:.1f}, cost {final['eval_cost_mean']:.1f}"
        how = how_evaluated([bool(final["eval_drawn"])])
        yield f"evaluated {how}: {worth} over {final['eval_episodes']} episodes of the last policies"
    if final["best_return_mean"] is not None and final["best_return_mean"] != final["eval_return_mean"]:
        worth = f"return {final['best_return_mean']:.1f}, cost {final['best_cost_mean']:.1f}"
        yield f"best policies, those after round {final['best_round']} (checkpoints/best): {worth} over as many"


def _aged(mean_age_s: float | None) -> str:
    return f", states {mean_age_s:.3g} s old on average when acted on" if mean_age_s else ""


@refusals()
def _load(source: str, overrides: list[str] | None, seed: int | None, *, allow_code: bool = False) -> Scenario:
    if allow_code and Path(source).name == SCENARIO_FILE:
        from coordinator.records.plan import register_as

        register_as(Path(source).parent)
    return load(source, [*(overrides or ()), *([] if seed is None else [f"seed={seed}"])])


def _agents(text: str, n_agents: int) -> frozenset[int]:
    words = [word.strip() for word in text.split(",") if word.strip()]
    for word in words:
        if not word.isdecimal() or int(word) >= n_agents:
            raise ValueError(f"--by-hand: got {word!r}, expected agents from 0 to {n_agents - 1}, with commas between them")
    return frozenset(map(int, words))


def _shortened(sizes: list[int]) -> str:
    return " ".join(map(str, sizes)) if len(sizes) <= 24 else " ".join(map(str, sizes[:24])) + " …"


for registered in app.registered_commands:
    called = str(registered.name or getattr(registered.callback, "__name__", ""))
    registered.epilog = epilog(called)

guard.interrupt_as_usual()

if __name__ == "__main__":
    main()
