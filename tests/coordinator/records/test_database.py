"""Recording and reporting: what is reported in any order ends up the same, and figures are what they say."""

import json
import math
import sqlite3
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from coordinator.records.database import Recorder, Results
from coordinator.records.plan import plan
from coordinator.records.run_sqlite import DATABASE
from coordinator.records.sinks import TensorBoard
from coordinator.run.collector import Outcome
from coordinator.run.metrics import Report, latest, report
from scenarios.loading import load
from topology.planes.control import AgeRow, EpisodeRow, RoundReport
from topology.wire.ledger import Row


@pytest.fixture
def recorder(tmp_path: Path) -> Iterator[Recorder]:
    opened = Recorder(tmp_path, env_steps_per_round=40)
    yield opened
    opened.close()


def results(run_dir: Path) -> "closing[Results]":
    return closing(Results(run_dir))


def rows_of(run_dir: Path, table: str) -> list[tuple[Any, ...]]:
    with closing(sqlite3.connect(run_dir / DATABASE)) as database:
        return database.execute(f"SELECT * FROM {table}").fetchall()


def episode(env_step: int, ret: float, cost: tuple[float, ...] = (0.0,), copy: int = 0) -> EpisodeRow:
    return EpisodeRow(round=0, env_step=env_step, copy_index=copy, ret=ret, cost=cost, length=10)


def round_report(agent: int = 0, **changes: Any) -> RoundReport:
    usual: dict[str, Any] = {
        "role": f"node-{agent}", "agent": agent, "round": 1, "virtual_s": 2.5, "metrics": {}, "traffic": (),
    }  # fmt: skip
    return RoundReport(**(usual | changes))


SENT = Row(
    0, "peer", "0", "1", "STATE", messages=6, payload_bytes=300, wire_bytes=400, resent_bytes=50, dropped=3, loss=2, outage=1
)
CAME = Row(0, "peer", "0", "1", "STATE", delivered=2, in_flight=1)


def test_what_sender_and_receiver_book_of_a_link_becomes_one_row(recorder: Recorder, tmp_path: Path) -> None:
    recorder.round(round_report(0, traffic=(SENT,)), 1.0)
    recorder.round(round_report(1, traffic=(CAME,)), 1.0)
    recorder.traffic((SENT,))
    recorder.commit()
    assert [Row._make(row) for row in rows_of(tmp_path, "traffic")] == [
        SENT._replace(
            messages=12,
            payload_bytes=600,
            wire_bytes=800,
            resent_bytes=100,
            dropped=6,
            loss=4,
            outage=2,
            delivered=2,
            in_flight=1,
        )
    ]


def test_every_figure_of_the_ledger_has_a_column_of_its_name(recorder: Recorder, tmp_path: Path) -> None:
    recorder.traffic([Row._make((0, "peer", "0", "1", "STATE", *range(1, len(Row._fields) - 4)))])
    recorder.commit()
    with closing(sqlite3.connect(tmp_path / DATABASE)) as database:
        database.row_factory = sqlite3.Row
        row = database.execute("SELECT * FROM traffic").fetchone()
    assert row.keys() == [*Row._fields]
    assert [row[name] for name in Row._fields[5:]] == [*range(1, len(Row._fields) - 4)]


def test_how_old_the_news_was_is_kept_by_round_agent_and_origin(recorder: Recorder, tmp_path: Path) -> None:
    recorder.round(round_report(2, ages=(AgeRow(0, 80, 5, 0.02, 0.3), AgeRow(1, 80, 0, 0.0, 0.0))), 1.0)
    recorder.round(round_report(0, ages=(AgeRow(1, 80, 80, 2.5, 4.0),)), 1.0)
    recorder.commit()
    with closing(sqlite3.connect(tmp_path / DATABASE)) as database:
        rows = database.execute("SELECT round, agent, origin, used, missing, mean_s, max_s FROM ages").fetchall()
    assert rows == [(1, 0, 1, 80, 80, 2.5, 4.0), (1, 2, 0, 80, 5, 0.02, 0.3), (1, 2, 1, 80, 0, 0.0, 0.0)]


def test_books_balance_over_both_ends_and_all_reports_or_the_link_is_told(recorder: Recorder, tmp_path: Path) -> None:
    with results(tmp_path) as found:
        assert found.imbalance() is None
        recorder.round(round_report(0, traffic=(SENT, SENT._replace(kind="RATIO"))), 1.0)
        recorder.commit()
        told = found.imbalance()
        assert told is not None
        assert "peer RATIO 0 -> 1, round 0: 6 sent, 0 delivered, 3 dropped (3 with a reason), 0 in flight" in told
        recorder.round(round_report(1, traffic=(CAME, CAME._replace(kind="RATIO"))), 1.0)
        recorder.commit()
        assert found.imbalance() is None


def test_links_of_agents_that_died_need_not_balance(recorder: Recorder, tmp_path: Path) -> None:
    recorder.traffic([SENT, SENT._replace(src="11", dst="0"), SENT._replace(plane="world", src="1", dst="world")])
    recorder.commit()
    with results(tmp_path) as found:
        assert found.imbalance(gone=[1, 11]) is None
        for others in ([], [0], [1], [11]):
            assert found.imbalance(gone=others) is not None


keys = st.tuples(st.integers(0, 1), st.sampled_from(["peer", "world"]), st.sampled_from("01"), st.sampled_from("01"))
sums = st.tuples(*[st.integers(0, 99)] * (len(Row._fields) - 5))
traffic = st.lists(st.builds(lambda key, counts: Row._make((*key, "STATE", *counts)), keys, sums), max_size=9)


@settings(max_examples=15, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(pages=st.lists(traffic, max_size=4), data=st.data())
def test_the_ledgers_digest_does_not_depend_on_the_order_of_reports(
    pages: list[list[Row]], data: st.DataObject, tmp_path_factory: pytest.TempPathFactory
) -> None:
    digests = set()
    for order in (
        pages,
        data.draw(st.permutations(pages)),
        [data.draw(st.permutations([row for page in pages for row in page]))],
    ):
        folder = tmp_path_factory.mktemp("r")
        with closing(Recorder(folder, env_steps_per_round=1)) as recorder:
            for page in order:
                recorder.traffic(page)
        with results(folder) as found:
            digests.add(found.ledger_sha256())
    assert len(digests) == 1


def test_the_ledgers_digest_changes_with_every_figure(tmp_path: Path) -> None:
    digests = set()
    for place in range(len(SENT)):
        changed = [*SENT]
        changed[place] = 7 if isinstance(changed[place], int) else "world"
        folder = tmp_path / str(place)
        folder.mkdir()
        with closing(Recorder(folder, env_steps_per_round=1)) as recorder:
            recorder.traffic([Row._make(changed)])
        with results(folder) as found:
            digests.add(found.ledger_sha256())
    assert len(digests) == len(SENT)


def test_a_rounds_figures_go_to_their_columns_and_what_has_none_is_kept_too(recorder: Recorder, tmp_path: Path) -> None:
    recorder.round(round_report(2, metrics={"kl": 0.5, "odd": 3.0}), 7.5)
    recorder.commit()
    with closing(sqlite3.connect(tmp_path / DATABASE)) as database:
        row = database.execute("SELECT round, agent, env_step, wall_s, virtual_s, kl, entropy, more FROM rounds").fetchone()
    assert row == (1, 2, 80, 7.5, 2.5, 0.5, None, '{"odd": 3.0}')
    assert rows_of(tmp_path, "events") == []


def test_refusals_are_told_by_their_number_and_the_first_reasons(recorder: Recorder, tmp_path: Path) -> None:
    recorder.round(round_report(2, refused=300, refusals=("STATE came twice", "header: 900 bytes")), 7.5)
    recorder.refusals(8.0, "world", 1, 0, ())
    recorder.commit()
    assert rows_of(tmp_path, "events") == [
        (7.5, "node-2", "refused 300 frames", None, 1),
        (7.5, "node-2", "refused: STATE came twice", None, 1),
        (7.5, "node-2", "refused: header: 900 bytes", None, 1),
    ]


def test_what_a_node_met_keeps_its_virtual_time(recorder: Recorder, tmp_path: Path) -> None:
    recorder.round(round_report(0, incidents=((2.5, "down"), (3.5, "up again"))), 7.5)
    recorder.commit()
    assert rows_of(tmp_path, "events") == [(7.5, "node-0", "down", 2.5, 1), (7.5, "node-0", "up again", 3.5, 1)]


def test_episodes_without_a_return_are_counted_and_never_averaged_away(recorder: Recorder, tmp_path: Path) -> None:
    recorder.round(round_report(metrics={"kl": float("nan"), "odd": float("nan")}), 1.0)
    recorder.episodes([episode(step, step) for step in (1, 2, 3)] + [episode(4, float("nan"), (float("nan"),))])
    recorder.commit()
    assert rows_of(tmp_path, "episodes")[-1][3:6] == (None, None, "[null]")
    with results(tmp_path) as found:
        assert str(found.episodes("return")) == "[(1, 1.0), (2, 2.0), (3, 3.0), (4, nan)]"
        assert [quarter.faulty for quarter in found.quarters()] == [0, 0, 0, 1]
        assert [math.isnan(quarter.ret) for quarter in found.quarters()] == [False, False, False, True]


def test_readers_see_what_was_committed_while_the_writer_goes_on(recorder: Recorder, tmp_path: Path) -> None:
    recorder.episodes([episode(10, 1.0)])
    with results(tmp_path) as found:
        assert found.episodes("return") == []
        recorder.commit()
        assert found.episodes("return") == [(10, 1.0)]
        recorder.episodes([episode(20, 3.0)])
        recorder.commit()
        assert found.episodes("return") == [(10, 1.0), (20, 3.0)]


def test_the_file_alone_holds_everything_once_it_is_closed_though_a_reader_is_left(tmp_path: Path) -> None:
    recorder = Recorder(tmp_path, env_steps_per_round=40)
    recorder.episodes([episode(40, 1.0)])
    recorder.commit()
    with results(tmp_path) as reader:
        assert len(reader.episodes("return")) == 1
        recorder.close()
        (tmp_path / "copy").mkdir()
        (tmp_path / "copy" / DATABASE).write_bytes((tmp_path / DATABASE).read_bytes())
    assert len(rows_of(tmp_path / "copy", "episodes")) == 1


def test_the_cost_of_an_episode_is_the_sum_of_its_costs(recorder: Recorder, tmp_path: Path) -> None:
    recorder.episodes([episode(step, float(step), (step / 10, 1.0)) for step in (10, 20, 30)])
    recorder.commit()
    with results(tmp_path) as found:
        assert found.episodes("cost") == [(10, 2.0), (20, 3.0), (30, 4.0)]


def test_quarters_divide_the_episodes_in_the_order_in_which_they_ended(recorder: Recorder, tmp_path: Path) -> None:
    recorder.episodes([episode(step, float(step), copy=copy) for step in (40, 10, 30, 20) for copy in (1, 0)])
    recorder.commit()
    with results(tmp_path) as found:
        assert [tuple(quarter) for quarter in found.quarters()] == [
            (10.0, 0.0, 2, 0),
            (20.0, 0.0, 2, 0),
            (30.0, 0.0, 2, 0),
            (40.0, 0.0, 2, 0),
        ]


def test_fewer_than_four_episodes_have_no_quarters(recorder: Recorder, tmp_path: Path) -> None:
    recorder.episodes([episode(step, 1.0) for step in (1, 2, 3)])
    recorder.commit()
    with results(tmp_path) as found:
        assert found.quarters() == []


def test_bytes_are_told_by_plane_and_kind(recorder: Recorder, tmp_path: Path) -> None:
    recorder.traffic([SENT, SENT._replace(dst="2"), SENT._replace(kind="RATIO"), SENT._replace(plane="world", kind="ACT")])
    recorder.commit()
    with results(tmp_path) as found:
        assert found.peer_bytes() == (900, 1200)
        assert [(row.plane, row.kind, row.messages, row.payload_bytes, row.wire_bytes) for row in found.by_kind()] == [
            ("peer", "RATIO", 6, 300, 400),
            ("peer", "STATE", 12, 600, 800),
            ("world", "ACT", 6, 300, 400),
        ]


def test_tensorboard_events_hold_episodes_and_metrics(tmp_path: Path) -> None:
    from tensorboard.backend.event_processing.event_file_loader import EventFileLoader

    with closing(Recorder(tmp_path, env_steps_per_round=40, sinks=[TensorBoard(tmp_path)])) as recorder:
        recorder.episodes([episode(10, -3.0)])
        recorder.round(round_report(2, metrics={"kl": 0.5}), 1.0)
    (file,) = (tmp_path / "tensorboard").iterdir()
    found = {(value.tag, event.step) for event in EventFileLoader(str(file)).Load() for value in event.summary.value}
    assert found >= {("episode/return", 10), ("episode/cost", 10), ("agent 2/kl", 80)}


def test_going_on_drops_what_is_later_and_what_only_the_end_tells(tmp_path: Path) -> None:
    with closing(Recorder(tmp_path, env_steps_per_round=40, sinks=[TensorBoard(tmp_path)])) as recorder:
        for round_ in range(4):
            recorder.episodes([episode(40 * round_ + 10, -3.0).model_copy(update={"round": round_})])
            rows = (SENT._replace(round=round_), CAME._replace(round=round_))
            recorder.round(round_report(0, round=round_, traffic=rows, ages=((1, 6, 1, 0.5, 1.0),), refused=1), 1.5 * round_)
        recorder.event(7.0, "coordinator", "interrupted")
        recorder.meta(env_steps=160)
    with closing(
        Recorder(tmp_path, env_steps_per_round=40, sinks=[TensorBoard(tmp_path, after=80)], resumed_after=1)
    ) as recorder:
        assert recorder.wall_s == 1.5
        for table in ("episodes", "rounds", "traffic", "ages"):
            assert len(rows_of(tmp_path, table)) == 2, table
        assert [row[2] for row in rows_of(tmp_path, "events")] == ["refused 1 frames", "refused 1 frames", "interrupted"]
        assert rows_of(tmp_path, "meta") == []
        with results(tmp_path) as found:
            assert {(row.delivered, row.in_flight) for row in found.traffic()} == {(3, 0)}
        recorder.round(round_report(0, round=2), 4.0)  # and it can be told once more
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    events = EventAccumulator(str(tmp_path / "tensorboard")).Reload()
    assert [event.step for event in events.Scalars("episode/return")] == [10, 50]


def reported(run_dir: Path, outcome: Outcome) -> Report:
    ready = plan(load("quickstart", ["env.name=network_lq", "env.agents=2", "topology.kind=line", "algorithm.cost_limit=5"]))
    with results(run_dir) as found:
        return report(ready, run_dir, found, outcome)


def test_a_report_is_about_the_last_tenth_of_the_steps(recorder: Recorder, tmp_path: Path) -> None:
    recorder.episodes([episode(step, float(step)) for step in (50, 90, 91, 100)])
    recorder.traffic([SENT])
    recorder.commit()
    outcome = Outcome(
        env_steps=100, wall_s=4.0, weights={"node-0": "a", "node-1": "b"}, pids={"world": 1, "node-1": 3, "node-0": 2}
    )
    found = reported(tmp_path, outcome)
    assert found["return_mean"] == 95.5
    assert found["env_steps_per_s"] == 25.0
    assert found["bytes_per_agent_step"] == 400 / (2 * 100)
    assert found["node_pids"] == [2, 3]
    assert (found["payload_bytes"], found["wire_bytes"]) == (300, 400)
    outcome.weights["node-1"] = "c"
    assert reported(tmp_path, outcome)["weights_sha256"] != found["weights_sha256"]
    outcome.env_steps = 40
    assert reported(tmp_path, outcome)["return_mean"] is None
    outcome.env_steps = 89
    assert reported(tmp_path, outcome)["return_mean"] == 50.0  # none in the last tenth: the last there is


@given(ends=st.lists(st.integers(1, 9) | st.integers(1, 99), max_size=12), by=st.integers(0, 120))
def test_episodes_that_ended_last_are_those_of_the_last_tenth_that_has_any(ends: list[int], by: int) -> None:
    ends = sorted(ends)
    (first,), (behind,) = latest(np.array(ends, dtype=np.float64), np.array([float(by)]), learns=True)
    so_far = [end for end in ends if end <= by]
    tenth = [end for end in so_far if end > by - by // 10]
    if so_far and not tenth:
        tenth = [end for end in so_far if end > so_far[-1] - max(so_far[-1] // 10, 1)]
    assert ends[first:behind] == tenth
    (first,), (behind,) = latest(np.array(ends, dtype=np.float64), np.array([float(by)]), learns=False)
    assert ends[first:behind] == so_far


def test_a_run_that_never_began_has_a_report_too(recorder: Recorder, tmp_path: Path) -> None:
    found = reported(tmp_path, Outcome(error="x"))
    assert json.loads(json.dumps(found)) == found
    assert (found["return_mean"], found["env_steps_per_s"], found["node_pids"]) == (None, 0.0, [])


def test_meta_facts_are_kept_as_json_and_may_change(recorder: Recorder, tmp_path: Path) -> None:
    recorder.meta(a=1, b=[2.5, None])
    recorder.meta(a="x")
    recorder.commit()
    assert dict(rows_of(tmp_path, "meta")) == {"a": '"x"', "b": "[2.5, null]"}
