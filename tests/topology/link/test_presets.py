"""Presets: every name is a medium with a source, the numbers are the sources', and attributes change what they name."""

import math
from pathlib import Path
from typing import Any

import pytest

from scenarios.schema import LinkAttributes, Part
from topology.link.model import IDEAL, LinkSpec
from topology.link.presets import ALIASES, PRESETS, changed, named
from topology.link.traces import Trace


def test_every_name_is_a_medium_with_a_source(subtests: pytest.Subtests) -> None:
    for name in [*PRESETS, *ALIASES]:
        with subtests.test(name=name):
            preset = PRESETS[ALIASES.get(name, name)]
            assert named(name) is preset.spec
            assert preset.source.endswith(".")
            assert len(preset.source) > 20
            assert preset.spec.is_ideal == (name == "ideal")


def test_every_queue_takes_a_full_fragment(subtests: pytest.Subtests) -> None:
    for name in PRESETS:
        with subtests.test(name=name):
            spec = PRESETS[name].spec
            assert spec.queue_bytes >= 4 * spec.mtu_bytes


def test_delays_and_rates_are_those_of_the_sources(subtests: pytest.Subtests) -> None:
    rows: list[tuple[str, float, float | None, float]] = [
        ("wifi-campus", 0.003, 0.020, 30e6),
        ("wifi-busy", 0.020, 0.100, 10e6),
        ("lte", 2 * 0.045, None, 50e6),
        ("slow-4g", 0.150, 0.150, 0.75e6),
        ("hspa", 2 * 0.150, None, 10e6),
        ("3g", 2 * 0.250, None, 1.2e6),
        ("edge", 2 * 0.650, None, 200e3),
        ("gprs", 2 * 0.650, None, 20e3),
        ("5g-nsa", 0.018 + 0.007, None, 50e6),
        ("leo", 0.050, None, 20e6),
        ("v2x-11p", 0.004, None, 6e6),
        ("uav-mesh", 0.010, None, 6e6),
        ("802.15.4", 0.005, None, 250e3),
        ("lan", 0.0002, None, 1e9),
        ("wan", 0.040, None, 18e6),
    ]
    for name, median_s, ninth_tenth_s, rate_bps in rows:
        with subtests.test(name=name):
            spec = named(name)
            assert spec.delay_s + spec.quantile(0.5) == pytest.approx(median_s)
            if ninth_tenth_s is not None:
                assert spec.delay_s + spec.quantile(0.9) == pytest.approx(ninth_tenth_s)
            assert spec.rate_bps == rate_bps


def test_further_quantiles() -> None:
    assert named("wifi-campus").quantile(0.99) == 0.250
    leo = named("leo")
    assert [round(leo.delay_s + leo.quantile(part), 6) for part in (0.0, 0.25, 0.75)] == [0.020, 0.040, 0.060]


def test_bursts_have_the_rates_of_the_chain(subtests: pytest.Subtests) -> None:
    rows: list[tuple[str, float, float]] = [
        ("wifi-campus", 0.00337, 0.333),
        ("wifi-busy", 0.00619, 0.2),
        ("uav-mesh", 0.01852, 0.167),
        ("802.15.4", 0.02174, 0.25),
    ]
    for name, enter, leave in rows:
        with subtests.test(name=name):
            spec = named(name)
            assert 1 / spec.loss_burst == pytest.approx(leave, abs=5e-4)
            assert spec.loss_prob / spec.loss_burst / (1 - spec.loss_prob) == pytest.approx(enter, abs=5e-6)


def test_two_legs_lose_what_either_loses() -> None:
    assert named("lte").loss_prob == pytest.approx(1 - 0.998**2)
    assert named("wan").loss_prob == pytest.approx(0.0025, abs=1e-5)


@pytest.mark.parametrize(("size", "airtime_s", "name"), [(222, 0.369, "lora-sf7"), (51, 2.79, "lora-sf12")])
def test_a_full_lora_frame_takes_its_airtime(size: int, airtime_s: float, name: str) -> None:
    spec = named(name)
    assert (spec.mtu_bytes, spec.duty) == (size, 0.01)
    assert size * 8 / spec.rate_bps == pytest.approx(airtime_s)


# --------------------------------------------------------------------------------------------------- names and attributes


def test_an_unknown_name_is_told_with_the_nearest_and_all() -> None:
    with pytest.raises(ValueError, match="preset: got 'wifi-campos', did you mean 'wifi-campus'") as told:
        named("wifi-campos")
    assert all(name in str(told.value) for name in (*PRESETS, *ALIASES, "trace:PATH"))
    assert "\n" not in str(told.value)


def test_a_trace_is_named_by_its_file(tmp_path: Path) -> None:
    (tmp_path / "t").write_text("1\n")
    spec = named(f"trace:{tmp_path / 't'}")
    assert spec.mean_rate_bps == 12e6
    assert not spec.is_ideal
    with pytest.raises(ValueError, match=r"^preset: .*: does not exist$"):
        named(f"trace:{tmp_path / 'none'}")


def test_what_is_not_given_stays() -> None:
    for preset in PRESETS.values():
        assert changed(preset.spec, LinkAttributes()) == preset.spec
        assert changed(preset.spec, Part()) == preset.spec


def test_what_is_given_changes_that_and_nothing_else(subtests: pytest.Subtests) -> None:
    rows: list[tuple[dict[str, Any], str, Any]] = [
        ({"loss_prob": 0.2}, "loss_prob", 0.2),
        ({"loss_prob": 0.0}, "loss_prob", 0.0),
        ({"loss_burst": 2.0}, "loss_burst", 2.0),
        ({"loss_burst": 0.0}, "loss_burst", 0.0),
        ({"latency_ms": 30.0}, "delay_s", 0.030),
        ({"jitter_ms": 0.0}, "spread", ()),
        ({"jitter_ms": 10.0, "latency_ms": 10.0}, "spread", ((0.0, -0.010), (1.0, 0.010))),
        ({"rate_bps": 5e6}, "rate_bps", 5e6),
        ({"rate_bps": 0.0}, "rate_bps", math.inf),
        ({"mtu_bytes": 9000}, "mtu_bytes", 9000),
        ({"queue_bytes": 12}, "queue_bytes", 12),
        ({"queue_bytes": 0}, "queue_bytes", math.inf),
        ({"duty": 0.1}, "duty", 0.1),
        ({"retries": 0}, "retries", 0),
        ({"reorder": True}, "reorder", True),
    ]
    for given, attribute, value in rows:
        with subtests.test(given=given):
            before, after = named("wifi-campus"), changed(named("wifi-campus"), Part(**given))
            assert getattr(after, attribute) == value
            same = {"trace", *LinkSpec.__slots__} - {attribute} - ({"delay_s"} if "latency_ms" in given else set())
            assert all(getattr(after, name) == getattr(before, name) for name in same)


def test_a_rate_takes_the_place_of_a_trace() -> None:
    spec = LinkSpec(trace=Trace.of_opportunities([1]))
    assert changed(spec, LinkAttributes(rate_bps=5e6)) == LinkSpec(rate_bps=5e6)
    assert changed(spec, LinkAttributes(latency_ms=5.0)).trace is spec.trace


def test_attributes_that_do_not_fit_are_told(subtests: pytest.Subtests) -> None:
    rows: list[tuple[LinkSpec, dict[str, Any], str]] = [
        (IDEAL, {"jitter_ms": 5.0}, "jitter_ms: got 5.0; delays would lie 5 ms around 0 ms and must not be below 0"),
        (IDEAL, {"jitter_ms": 5.0, "latency_ms": 4.0}, "jitter_ms: got 5.0; .* around 4 ms"),
        (named("lte"), {"latency_ms": 4.0}, "latency_ms: got 4.0; delays would lie 20 ms around 4 ms"),
        (IDEAL, {"loss_prob": 0.9, "loss_burst": 2.0}, "loss_prob: got 0.9 in bursts of 2.0"),
    ]
    for spec, given, told in rows:
        with subtests.test(told=told), pytest.raises(ValueError, match=told):
            changed(spec, LinkAttributes(**given))
