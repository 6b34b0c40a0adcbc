"""The collector: what is reported reaches the database, and where the run is, it can say."""

from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest

from coordinator.records.checkpoints import complete_rounds
from coordinator.records.database import Recorder, RecordingError, Results
from coordinator.records.plan import make_run_dir, plan
from coordinator.records.run_sqlite import Reader
from coordinator.run.collector import Collector
from scenarios.loading import load
from topology.deployment import state_folder
from topology.planes.control import Control, EpisodeRow, Finished, Hello, Progress, RoundReport, Stored
from topology.wire.ledger import Row

WORDS = ["rollout.steps=10", "record.tensorboard=false"]
ACT = Row(0, "world", "0", "world", "ACT", 1, 4, 9, 1, 0)


class Course:
    """A run of two agents of which nothing but the collector runs."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.ready = plan(load("stage_game", WORDS))
        make_run_dir(folder, self.ready)
        self.recorder = Recorder(folder, env_steps_per_round=10, sinks=[])
        self.seen: list[Control] = []
        self.collector = Collector(self.ready, folder, self.recorder, self.seen.append)

    def rows(self, sql: str) -> list[tuple[object, ...]]:
        """What the database holds by now."""
        with closing(Reader(self.folder)) as reader:
            return reader.query(sql)[1]

    def report(self, round_: int, ret: float) -> None:
        """What a world and two nodes report of a round of one episode."""
        episode = EpisodeRow(round=round_, env_step=10 * (round_ + 1), copy_index=0, ret=ret, cost=(), length=10)
        self.collector.take(Progress(round=round_, env_step=10 * (round_ + 1), episodes=(episode,), traffic=(ACT,)))
        for agent in (0, 1):
            self.collector.take(
                RoundReport(role=f"node-{agent}", agent=agent, round=round_, virtual_s=1.0, metrics={"kl": 0.1}, traffic=())
            )

    def store(self, round_: int, problem: str = "") -> None:
        """All three have stored their states, or the last of them could not."""
        state_folder(self.folder, round_).mkdir(parents=True)
        for role in ("world", "node-0", "node-1"):
            trouble = problem if role == "node-1" else ""
            self.collector.take(Stored(role=role, round=round_, sha256="" if trouble else "0" * 64, problem=trouble))


@pytest.fixture
def course(tmp_path: Path) -> Iterator[Course]:
    course = Course(tmp_path / "run")
    yield course
    course.recorder.close()


def test_reports_are_recorded_counted_and_passed_on(course: Course) -> None:
    collector = course.collector
    for place, role in enumerate(("world", "node-0", "node-1")):
        collector.take(Hello(role=role, pid=100 + place, endpoint="ipc://x"))
    collector.begin()
    course.report(0, 3.0)
    course.report(1, 5.0)
    collector.take(Finished(role="node-0", weights_sha256="ab", traffic=(ACT,)))
    collector.take(Finished(role="world"))
    assert collector.outcome.pids == {"world": 100, "node-0": 101, "node-1": 102}
    assert (collector.finished, collector.outcome.weights) == ({"node-0", "world"}, {"node-0": "ab"})
    assert collector.outcome.env_steps == 20
    assert len(course.seen) == 3 + 2 * 3 + 2
    collector.close()
    assert collector.outcome.error is None
    assert collector.outcome.wall_s > 0
    with closing(Results(course.folder)) as results:
        assert results.episodes("return") == [(10, 3.0), (20, 5.0)]
        assert results.by_round("kl") == [0.1, 0.1]
        assert [(row.kind, row.messages) for row in results.by_kind()] == [("ACT", 3)]


def test_a_state_counts_once_all_have_stored_theirs_and_its_round_is_in_the_database(course: Course) -> None:
    course.collector.begin()
    course.report(0, 3.0)
    course.store(0)
    assert complete_rounds(course.folder) == [0]
    assert course.rows("SELECT count(*) FROM rounds") == [(2,)]
    course.report(1, 5.0)
    course.store(1, "node-1.safetensors: No space left on device")
    assert complete_rounds(course.folder) == [0]
    assert isinstance(course.seen[-1], Stored)
    course.collector.close()
    (event,) = course.rows("SELECT role, text FROM events")
    assert event == ("node-1", "no state stored: node-1.safetensors: No space left on device")


def test_it_says_where_the_run_is(course: Course) -> None:
    collector = course.collector
    assert collector.where() == " while starting"
    assert collector.wall_s() == 0.0
    collector.begin()
    collector.take(Progress(round=3, env_step=12_000))
    assert collector.where() == " in round 3, env step 12,000"
    collector.end_training()
    assert collector.where() == " while evaluating"
    assert collector.wall_s() == collector.wall_s()  # time stands still


def test_what_happens_is_told_as_sentences_and_kept_as_events(course: Course) -> None:
    collector = course.collector
    collector.begin()
    assert collector.diverge(1, 1200, "the loss is not finite") == "agent 1 diverged at step 1,200: the loss is not finite"
    assert collector.diverge(None, 7, "nan").startswith("the central critic diverged at step 7")
    assert [one["agent"] for one in collector.outcome.diverged] == [1, None]
    collector.lose(1, "node 1 was killed by SIGKILL")
    collector.take(Progress(round=0, env_step=5, faults=("copy 0 left the road",), refused=2, refusals=("too long",)))
    collector.close("the world gave up", interrupted=True)
    assert collector.outcome.gone == {1}
    assert (collector.outcome.error, collector.outcome.interrupted) == ("the world gave up", True)
    told = [text for (text,) in course.rows("SELECT text FROM events ORDER BY rowid")]
    assert told[:2] == ["node 1 was killed by SIGKILL; the others go on", "copy 0 left the road"]
    assert told[-1] == "the world gave up"
    assert any("too long" in str(text) for text in told)


def test_what_cannot_be_recorded_ends_the_run_once_and_late_reports_end_nothing(
    course: Course, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full() -> bool:
        raise RecordingError("no room")

    course.collector.begin()
    monkeypatch.setattr(course.recorder, "commit", full)
    with pytest.raises(RecordingError, match="no room"):
        course.report(0, 1.0)
    course.collector.close()
    assert course.collector.outcome.error == "no room"
    course.store(0)  # from processes that are about to end
    assert len(course.seen) == 4
