"""What a person sees of one run: the bar, plain lines where there is no terminal, and the tables at the end."""

from coordinator.cli.progress import Display, failure
from coordinator.evaluation.evaluations import Evaluated, Job
from coordinator.report.words import size
from tests.builders import Screen
from topology.planes.control import EpisodeRow, Progress, RoundReport, Stored
from topology.wire.ledger import Row


def episode(ret: float, cost: float) -> EpisodeRow:
    return EpisodeRow(round=0, env_step=10, copy_index=0, ret=ret, cost=(cost,), length=10)


def at(step: int, *episodes: EpisodeRow) -> Progress:
    return Progress(round=0, env_step=step, episodes=episodes)


def test_without_a_terminal_there_is_a_line_per_tenth_with_means_of_the_last_episodes() -> None:
    screen = Screen()
    with Display(screen.console, total_steps=1000, quiet=False) as display:
        for step in range(50, 1001, 50):
            display.watch(at(step, episode(step / 10, 2.0), episode(float("nan"), float("nan"))))
    starts = [line.partition("  ")[0] for line in screen.lines]
    assert starts == [f"{step:,} of 1,000 steps" for step in range(100, 1001, 100)]
    assert "return 7.5  cost 2.0  2 episodes diverged" in screen.lines[0]
    assert "return 52.5  cost 2.0  20 episodes diverged" in screen.lines[-1]  # 20 episodes, of 5, 10, … 100


def test_bytes_between_agents_count_and_those_of_the_world_do_not() -> None:
    display = Display(Screen().console, total_steps=100, quiet=True)
    rows = tuple(Row(0, plane, "0", "1", "STATE", 1, 4, n_bytes, 1, 0) for plane, n_bytes in (("peer", 7), ("world", 100)))
    display.watch(RoundReport(role="node-0", agent=0, round=0, virtual_s=1.0, metrics={}, traffic=rows))
    assert display._wire_bytes == 7


def test_a_state_that_cannot_be_stored_is_told_once_and_an_evaluation_each_time() -> None:
    screen = Screen()
    with Display(screen.console, total_steps=100, quiet=False) as display:
        for round_ in (0, 1):
            display.watch(Stored(role="node-0", round=round_, problem="the disk is full"))
        display.watch_evaluations(Evaluated(Job(3, False, 20, "x"), 1.0, problem="no [red] weights"))
        display.watch_evaluations(Evaluated(Job(4, False, 20, "x"), 1.0, ret=3.0, cost=0.5))
        display.watch_evaluations(Evaluated(Job(4, True, 80, "x"), 1.0, ret=4.0, cost=0.5))
    assert screen.lines == [
        "warning: no state stored (the disk is full); the run goes on, kappahop resume has the state before",
        "warning: no [red] weights; kappahop resume tries again",
        f"{Job(4, True, 80, 'x')}: evaluated 4.0, cost 0.5",
    ]


def test_quiet_shows_nothing_but_what_must_be_seen() -> None:
    screen = Screen(is_terminal=True)
    with Display(screen.console, total_steps=10, quiet=True) as display:
        display.watch(at(10, episode(1.0, 0.0)))
        display.watch(Stored(role="node-0", round=0, problem="the disk is full"))
        display.watch_evaluations(Evaluated(Job(3, True, 20, "x"), 1.0, problem="no weights"))
        display.say("python -m node --agent 1")
    assert screen.lines == ["python -m node --agent 1"]


def test_on_a_terminal_the_bar_says_where_the_run_is() -> None:
    screen = Screen(is_terminal=True)
    with Display(screen.console, total_steps=100, quiet=False) as display:
        display.watch(at(50, episode(1.0, 0.25)))
        display.watch_evaluations(Evaluated(Job(3, True, 20, "x"), 0.5))
    assert "starting" in screen.text
    assert "50/100" in screen.text
    assert "return 1.0  cost 0.2" in screen.text
    assert "evaluating (50%)" in screen.text


def test_sizes_and_errors_in_words() -> None:
    assert [size(value) for value in (999.4, 999.6, 999_600, 5e12)] == ["999 B", "1 kB", "1 MB", "5e+03 GB"]
    assert failure("a\n  b").plain == "kappahop: a b"
