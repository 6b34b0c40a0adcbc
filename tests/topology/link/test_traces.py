"""Capacity traces: closed forms, an integral done by hand, and files that are none."""

import contextlib
import re
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from topology.link.traces import MAX_FILE_BYTES, Trace, TraceError, read_trace

opportunities = st.lists(st.integers(0, 30), min_size=1, max_size=20).map(sorted).filter(lambda times: times[-1] > 0)


def finish(trace: Trace, begin: float, size: int) -> float:
    return float(trace.finish(np.array([begin]), size)[0])


@given(begin_us=st.integers(0, 10**9), size=st.integers(1, 10**7))
def test_one_opportunity_per_millisecond_is_12_mbit_per_second(begin_us: int, size: int) -> None:
    assert finish(Trace.of_opportunities([1]), begin_us * 1e-6, size) == pytest.approx(
        begin_us * 1e-6 + size * 8 / 12e6, rel=1e-12, abs=1e-9
    )


def test_bytes_come_in_the_millisecond_that_is_listed_and_nowhere_else() -> None:
    trace = Trace.of_opportunities([3, 3, 10])  # 3000 bytes in (2, 3], 1500 in (9, 10], then again
    assert (trace.period_s, trace.mean_rate_bps) == (0.010, 4500 * 8 / 0.010)
    expected = {
        (0, 1500): 2.5, (0, 3000): 3, (0, 3001): 9 + 1 / 1500, (0, 4500): 10, (0, 4501): 12 + 1 / 3000, (0, 9000): 20,
        (2.5, 1500): 3, (2.5, 1501): 9 + 1 / 1500, (4, 1): 9 + 1 / 1500, (9.5, 750): 10, (13, 1500): 20, (102, 3000): 103,
    }  # fmt: skip
    for (begin_ms, size), end_ms in expected.items():
        assert finish(trace, begin_ms / 1000, size) * 1000 == pytest.approx(end_ms, abs=1e-6)


def test_an_opportunity_at_0_belongs_to_the_end_of_the_period() -> None:
    assert finish(Trace.of_opportunities([0, 10]), 0.0, 3000) == pytest.approx(0.010)
    assert finish(Trace.of_opportunities([0, 10]), 0.0095, 1500) == pytest.approx(0.010)


def test_what_fits_an_opportunity_exactly_does_not_wait_for_the_next() -> None:
    trace, now = Trace.of_opportunities([77]), 0.0
    for message in range(300):
        now = finish(trace, now, 500)
        assert now == pytest.approx(message // 3 * 0.077 + 0.076 + (message % 3 + 1) / 3000, abs=1e-6)


@given(times=opportunities, begin_ms=st.integers(0, 200), sizes=st.lists(st.integers(1, 9000), min_size=1, max_size=8))
def test_messages_one_after_the_other_take_as_long_as_their_sum(times: list[int], begin_ms: int, sizes: list[int]) -> None:
    trace, now = Trace.of_opportunities(times), begin_ms / 1000
    for size in sizes:
        later = finish(trace, now, size)
        assert later > now
        now = later
    assert now == pytest.approx(finish(trace, begin_ms / 1000, sum(sizes)), abs=1e-7)


@given(times=opportunities, begin_ms=st.integers(0, 200), size=st.integers(1, 90_000))
def test_the_bytes_listed_up_to_the_end_are_those_sent(times: list[int], begin_ms: int, size: int) -> None:
    trace = Trace.of_opportunities(times)
    end_ms = finish(trace, begin_ms / 1000, size) * 1000
    period = times[-1]
    whole = range(begin_ms, int(end_ms + 1e-6))
    per_ms = [times.count(ms) + (times.count(0) if ms == period else 0) for ms in range(1, period + 1)]
    sent = 1500 * sum(per_ms[ms % period] for ms in whole)
    last = per_ms[int(end_ms + 1e-6) % period] * 1500 * max(end_ms - int(end_ms + 1e-6), 0)
    assert sent + last == pytest.approx(size, abs=0.01)


def test_what_never_begins_never_ends_and_nothing_takes_no_time() -> None:
    ends = Trace.of_opportunities([5]).finish(np.array([[np.inf, 0.0], [1.0, 1.0]]), np.array([1500, 0]))
    assert ends == pytest.approx(np.array([[np.inf, 0.0], [1.005, 1.0]]))


def test_no_opportunities_no_trace(subtests: pytest.Subtests) -> None:
    for times in ([], [0], [-1, 3], [3, 2]):
        with subtests.test(times=times), pytest.raises(ValueError, match="opportunities_ms"):
            Trace.of_opportunities(times)


# -------------------------------------------------------------------------------------------------------------------- files


def test_a_file_is_read(tmp_path: Path) -> None:
    path = tmp_path / "t.up"
    path.write_text("3\n3\n\n10\n")
    assert finish(read_trace(str(path)), 0.0, 4500) == pytest.approx(0.010)


def test_a_file_that_is_no_trace_is_told_in_one_line(tmp_path: Path, subtests: pytest.Subtests) -> None:
    rows: list[tuple[bytes, str]] = [
        (b"", "at least one opportunity later than 0 ms"),
        (b"0\n0\n", "at least one opportunity later than 0 ms"),
        (b"1\nx\n", "line 2: got 'x'"),
        (b"-1\n", "line 1: got '-1'"),
        (b"1.5\n", "line 1: got '1.5'"),
        (b"1\n1e3\n", "line 2: got '1e3'"),
        (b"5\n4\n", "line 2: got 4 after 5, expected ascending"),
        (b"9999999999\n", "at most 9 digits"),
        (b"\xff\xfe\n", "is not UTF-8 text (byte 0)"),
        (b"7" * 1000, "at most 9 digits"),
        (b"0 1.5\n1 2\n", "got no unit of its rates; expected bit/s, kbit/s, Mbit/s or Gbit/s"),
        (b"time,Mbps\n0,1\nx,2\n", "line 3: got the time 'x', expected seconds or a date and time"),
        (b"time,Mbps\n0,1\n1,-2\n", "line 3: got the rate '-2', expected a number of 0 or more"),
        (b"time,Mbps\n5,1\n1,2\n", "line 3: got the time 1, earlier than the line before"),
        (b"time,Mbps\n5,1\n6\n", "line 3: got '6', expected a time and a rate"),
        (b"time,Mbps\n5,-\n6,0\n", "expected at least one rate above 0"),
        (b"time,down_rate,up_rate\n5,1,1\n", "say which, as in ?column=down_rate: down_rate, up_rate"),
    ]
    for content, told in rows:
        with subtests.test(content=content):
            path = tmp_path / "bad"
            path.write_bytes(content)
            with pytest.raises(TraceError) as error:
                read_trace(str(path))
            assert told in str(error.value)
            assert str(error.value).startswith(f"{path}: ")
            assert "\n" not in str(error.value)
            assert len(str(error.value)) < len(str(path)) + 150


def test_a_file_that_cannot_be_read_is_told(tmp_path: Path) -> None:
    for path in (tmp_path / "none", tmp_path, Path("a\0b")):
        with pytest.raises(TraceError, match=r"does not exist|is not a regular file|cannot be read"):
            read_trace(str(path))
    large = tmp_path / "large"
    with large.open("wb") as file:
        file.truncate(MAX_FILE_BYTES + 1)
    with pytest.raises(TraceError, match=f"expected at most {MAX_FILE_BYTES}"):
        read_trace(str(large))


def test_columns_of_times_and_rates(tmp_path: Path, subtests: pytest.Subtests) -> None:
    rows = [
        ("10 8\n12 16\n13 0\n", "?unit=Mbit/s"),
        ("# drive\n10,8000\n12,16000\n13,0\n", "?unit=kbps"),
        ("time_ms rate_Mbps\n10000 8\n12000 16\n13000 0\n", ""),
        ("t;cell;DL [kbit/s]\n10;a;8000\n12;b;-\n12;b;16000\n13;b;0\n", ""),
        ("bps,seconds\n8e6,10\n12e6,12\n20e6,12\n0,13\n", ""),  # of one time: the mean
        (
            "Timestamp,UL,DL\n2019.11.21_10.20.17,1,8\n2019.11.21_10.20.19,1,16\n2019.11.21_10.20.20,1,0\n",
            "?column=DL&unit=Mbit/s",
        ),
        ("2024-05-01T10:00:00 8\n2024-05-01T10:00:02 16\n2024-05-01T10:00:03 0\n", "?unit=Mbps"),
    ]
    for content, options in rows:
        with subtests.test(content=content):
            (tmp_path / "t.csv").write_text(content)
            trace = read_trace(f"{tmp_path}/t.csv{options}")
            # 1 MB/s for two seconds, 2 MB/s for one, nothing for one
            assert (trace.period_s, trace.mean_rate_bps) == (4.0, 8e6)
            for (begin, size), end in {(0, 1_000_000): 1, (0, 3_000_000): 2.5, (3.2, 500_000): 4.5, (1, 5_000_000): 6}.items():
                assert finish(trace, begin, size) == pytest.approx(end)


def test_what_stands_behind_the_path_is_checked(tmp_path: Path) -> None:
    (tmp_path / "t").write_text("time a b_Mbps\n0 1 2\n")
    for words, told in {
        "unit=parsec": "got unit=parsec; expected bit/s",
        "column=c": "got column=c; expected one of its columns: time, a, b_Mbps",
        "units=Mbps": "got 'units' behind the '?'; expected column, time, unit",
        "Mbps": "got 'Mbps' behind the '?'",
    }.items():
        with pytest.raises(TraceError, match=re.escape(told)):
            read_trace(f"{tmp_path}/t?{words}")


@given(data=st.one_of(st.binary(max_size=60), st.text("0123456789.-e ,\n\tt#", max_size=60).map(str.encode)))
@settings(max_examples=100)
def test_any_bytes_give_a_trace_or_a_trace_error(tmp_path_factory: pytest.TempPathFactory, data: bytes) -> None:
    path = tmp_path_factory.mktemp("fuzz") / "t"
    path.write_bytes(data)
    for options in ("", "?unit=bit/s"):
        with contextlib.suppress(TraceError):
            assert 0 < read_trace(f"{path}{options}").mean_rate_bps < np.inf
