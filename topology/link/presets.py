"""Link presets: media that scenarios name, each with where its numbers come from and how far to trust them.

Theory of operation. A preset describes one *directed link between two agents*. Where the source describes the access of one
device to a network (cellular, satellite, home line), such a link goes up from one device and down to the other:

    rate = min(up, down)    delay = up + down    spread = ±(up + down)    loss = 1 − (1 − loss)²

so a round-trip time between device and network, which is up + down, is the one-way delay between two devices. Where it
describes one hop by radio or cable, the link is that hop. Both directions of an edge are alike: each crosses one leg of
either kind.

A medium that agents share (one radio channel) is *not* modelled as shared: each directed link has the rate for itself.
Queues are chosen, not measured: 64 KiB, on low-power radios 16 frames.
"""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any, Literal

from pydantic import ValidationError

from scenarios.registry import LINK_PRESETS, RegistryError, nearest
from scenarios.schema import TRACE, LinkAttributes, Part
from topology.link.model import IDEAL, LinkSpec
from topology.link.traces import read_trace

QUEUE_BYTES = 1 << 16  # a few hundred states, or 43 full frames, of the order of a radio's own queue

Trust = Literal["measured", "computed", "published", "chosen"]


@dataclass(frozen=True, slots=True)
class Preset:
    """A named medium.

    Attributes:
        spec: What a link is like.
        trust: Of its weakest important number: measured by others; computed from a standard; published as a test profile;
            chosen by us.
        source: Where the numbers come from, and which of them are chosen.
    """

    spec: LinkSpec
    trust: Trust
    source: str


def _access(
    up_bps: float,
    down_bps: float,
    delay_s: float,
    spread_s: float = 0.0,
    *,
    loss_prob: float = 0.0,
    loss_burst: float = 0.0,
) -> LinkSpec:
    # up one device's leg and down another's; delay and spread of both legs together, loss of one
    return LinkSpec(
        rate_bps=min(up_bps, down_bps),
        delay_s=delay_s,
        spread=((0.0, -spread_s), (1.0, spread_s)) if spread_s else (),
        loss_prob=round(1 - (1 - loss_prob) ** 2, 12),
        loss_burst=loss_burst,
        queue_bytes=QUEUE_BYTES,
    )


PRESETS: dict[str, Preset] = {
    "ideal": Preset(IDEAL, "chosen", "Control: nothing is late, lost or limited."),
    "lan": Preset(
        LinkSpec(rate_bps=1e9, delay_s=0.0002, queue_bytes=1_500_000),
        "chosen",
        "A switched gigabit network; queue of 1000 full frames, netem's usual limit.",
    ),
    "wifi-campus": Preset(
        LinkSpec(
            rate_bps=30e6,
            spread=((0.0, 0.0), (0.5, 0.003), (0.9, 0.020), (0.99, 0.250), (1.0, 0.250)),
            loss_prob=0.01,
            loss_burst=3.0,
            queue_bytes=QUEUE_BYTES,
        ),
        "measured",
        "Delay: quantiles 3, 20, 250 ms at 50, 90, 99 % over 47 000 devices (WiFiSeer, MobiSys 2016), cut above the last. "
        "Rate and loss chosen; bursts of a Gilbert chain, which indoor 802.11 is known not to follow exactly.",
    ),
    "wifi-busy": Preset(
        LinkSpec(
            rate_bps=10e6,
            spread=((0.0, 0.0), (0.5, 0.020), (0.9, 0.100), (1.0, 0.100)),
            loss_prob=0.03,
            loss_burst=5.0,
            queue_bytes=QUEUE_BYTES,
        ),
        "measured",
        "Delay: more than half of the packets above 20 ms, a tenth above 100 ms on the Wi-Fi hop (campus study of 47 access "
        "points), cut there. Rate and loss chosen.",
    ),
    "lte": Preset(
        _access(50e6, 100e6, 0.090, 0.020, loss_prob=0.002, loss_burst=2.0),
        "published",
        "Loadero's 4G profile per direction: 50 / 100 Mbit/s, 45 ms, jitter 15 / 5 ms, loss 0.2 %. Burst chosen.",
    ),
    "slow-4g": Preset(
        _access(0.75e6, 1.6e6, 0.150),
        "published",
        "Lighthouse's slow 4G: 0.75 / 1.6 Mbit/s, round trip 150 ms, about the bottom quarter of 4G.",
    ),
    "hspa": Preset(
        _access(10e6, 20e6, 0.300, 0.020, loss_prob=0.005),
        "published",
        "Loadero's 3.5G profile per direction: 10 / 20 Mbit/s, 150 ± 10 ms, loss 0.5 %.",
    ),
    "3g": Preset(
        _access(1.2e6, 1.2e6, 0.500, 0.100, loss_prob=0.005),
        "published",
        "Loadero's 3G profile per direction: 1.2 Mbit/s, 250 ± 50 ms, loss 0.5 %.",
    ),
    "edge": Preset(
        _access(260e3, 200e3, 1.3, 0.200, loss_prob=0.01),
        "published",
        "Loadero's EDGE profile per direction: 260 / 200 kbit/s, 650 ± 100 ms, loss 1 %.",
    ),
    "gprs": Preset(
        _access(20e3, 80e3, 1.3, 0.200, loss_prob=0.01),
        "published",
        "Loadero's GPRS profile per direction: 20 / 80 kbit/s, 650 ± 100 ms, loss 1 %.",
    ),
    "5g-nsa": Preset(
        _access(50e6, 50e6, 0.025, loss_prob=0.001, loss_burst=2.0),
        "measured",
        "Delay 18 ms up (worst case) and 7 ms down (best case), Rohde & Schwarz in Munich; only the top 5 % of users see less "
        "than 20 ms (arXiv:2507.18834). Rate chosen (about 60 % of users measured less); loss chosen.",
    ),
    "leo": Preset(
        replace(
            _access(20e6, 150e6, 0.020, loss_prob=0.01, loss_burst=8.0),
            spread=((0.0, 0.0), (0.25, 0.020), (0.5, 0.030), (0.75, 0.040), (1.0, 0.060)),
        ),
        "measured",
        "Starlink round trips: least 20 ms, quartiles 40, 50, 60 ms (APNIC 2022; IMC 2022; arXiv:2310.09242). Most, rate and "
        "loss chosen. Its steps every 15 s and its heavier losses at handovers are not in it: add `change` events.",
    ),
    "v2x-11p": Preset(
        LinkSpec(rate_bps=6e6, delay_s=0.004, loss_prob=0.1, queue_bytes=QUEUE_BYTES),
        "published",
        "802.11p tables: 6 Mbit/s, which all in range share in truth; 4 ms in line of observation; loss of the order of 10 % in "
        "field tests, independent by choice.",
    ),
    "uav-mesh": Preset(
        LinkSpec(rate_bps=6e6, delay_s=0.010, loss_prob=0.1, loss_burst=6.0, queue_bytes=QUEUE_BYTES),
        "chosen",
        "One hop, 6 Mbit/s shared in truth; a two-state chain as in models of UAV links, its numbers chosen.",
    ),
    "802.15.4": Preset(
        LinkSpec(rate_bps=250e3, delay_s=0.005, loss_prob=0.08, loss_burst=4.0, mtu_bytes=127, queue_bytes=16 * 127),
        "computed",
        "IEEE 802.15.4 at 2.4 GHz: 250 kbit/s, frames of 127 bytes, shared in truth. Delay and loss chosen.",
    ),
    "lora-sf7": Preset(
        LinkSpec(rate_bps=222 * 8 / 0.369, loss_prob=0.05, mtu_bytes=222, queue_bytes=16 * 222, duty=0.01),
        "computed",
        "Airtime of a 222-byte frame 369 ms (Semtech AN1200.13), 1 % duty cycle: 48 bit/s in the long run. Loss chosen.",
    ),
    "lora-sf12": Preset(
        LinkSpec(rate_bps=51 * 8 / 2.79, loss_prob=0.05, mtu_bytes=51, queue_bytes=16 * 51, duty=0.01),
        "computed",
        "Airtime of a 51-byte frame 2.79 s (Semtech AN1200.13), 1 % duty cycle: 1.5 bit/s in the long run. Loss chosen.",
    ),
    "wan": Preset(
        _access(18e6, 140e6, 0.040, 0.005, loss_prob=0.00125),
        "chosen",
        "Shadow's example host: 18 / 140 Mbit/s. One delay for all pairs, 40 ± 5 ms, and a loss of 0.25 %, the middle of the "
        "0 to 0.5 % of its RIPE Atlas map of 2018, both chosen: give `edges` for a matrix.",
    ),
}
ALIASES: Mapping[str, str] = {"5g": "5g-nsa"}


def named(name: str, own: Mapping[str, Part] | None = None) -> LinkSpec:
    """The spec of a preset's name, or of `trace:PATH` (see `topology.link.traces.read_trace`).

    Args:
        name: A name of the scenario's own presets, or a registered one. It stands for a `Preset`, a `LinkSpec`, or a mapping
            of link attributes as `presets` of a scenario has them.
        own: The scenario's own presets.

    Raises:
        ValueError: there is no such preset, it makes no sense, or the file is no trace; the text begins with `preset:`.

    Example:
        >>> named("lan").rate_bps, named("near", {"near": Part(preset="lan", latency_ms=3)}).delay_s
        (1000000000.0, 0.003)
    """
    if name.startswith(TRACE):
        try:
            trace = read_trace(name.removeprefix(TRACE))
        except ValueError as error:
            raise ValueError(f"preset: {error}") from None
        return LinkSpec(trace=trace, queue_bytes=1_500_000)
    own = own or {}
    if name in own:
        return _built(name, own[name])
    try:
        found = LINK_PRESETS.resolve(name)
    except RegistryError as error:
        if name in LINK_PRESETS.names() or ":" in name:
            raise ValueError(f"preset: {error}") from None
        names = [*own, *LINK_PRESETS.names()]
        raise ValueError(
            f"preset: got {name!r}{nearest(name, names)}; expected one of {', '.join(names)}, or {TRACE}PATH"
        ) from None
    if isinstance(found, Mapping):
        try:
            return _built(name, Part.model_validate(dict(found)))
        except ValidationError as error:
            first = error.errors()[0]
            raise ValueError(f"preset: {name!r}: {'.'.join(map(str, first['loc']))}: {first['msg']}") from None
    spec = found.spec if isinstance(found, Preset) else found
    if not isinstance(spec, LinkSpec):
        raise ValueError(f"preset: {name!r} stands for {type(found).__name__}; expected a Preset, a LinkSpec or link attributes")
    return spec


def _built(name: str, part: Part) -> LinkSpec:
    """What the attributes of a preset make of the preset that it starts from."""  # noqa: DOC501  (as `named`)
    try:
        return changed(IDEAL if part.preset is None else named(part.preset), part)
    except ValueError as error:
        raise ValueError(f"preset: {name!r}: {error}") from None


def changed(spec: LinkSpec, by: LinkAttributes) -> LinkSpec:
    """The spec with the attributes that are given; those that are null stay.

    Raises:
        ValueError: the result makes no sense; the text begins with the name of the attribute.
    """
    values: dict[str, Any] = {
        name: value
        for name in ("loss_prob", "loss_burst", "mtu_bytes", "duty", "retries", "reorder")
        if (value := getattr(by, name, None)) is not None
    }
    if by.rate_bps is not None:
        values |= {"rate_bps": by.rate_bps or float("inf"), "trace": None}
    if by.queue_bytes is not None:
        values["queue_bytes"] = by.queue_bytes or float("inf")
    if by.latency_ms is not None:
        values["delay_s"] = by.latency_ms / 1000
    if by.jitter_ms is not None:
        spread_s = by.jitter_ms / 1000
        values["spread"] = ((0.0, -spread_s), (1.0, spread_s)) if spread_s else ()
    delay_s, spread = values.get("delay_s", spec.delay_s), values.get("spread", spec.spread)
    if spread and delay_s + spread[0][1] < 0:
        name = "latency_ms" if by.jitter_ms is None else "jitter_ms"
        raise ValueError(
            f"{name}: got {getattr(by, name)}; delays would lie {-spread[0][1] * 1000:g} ms around {delay_s * 1000:g} ms and "
            "must not be below 0"
        )
    return replace(spec, **values)
