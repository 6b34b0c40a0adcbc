"""How far a platoon amplifies a disturbance when messages are late or lost: `python benchmarks/string_stability.py`.

The leader's speed swings by 0.5 m/s. Every follower drives by the optimal-velocity law with α = β = 0.5 and adds the
acceleration of the vehicle ahead, as the last message said (with radar its speed is seen, without it comes from that message
too). A message per step and follower goes over a link of our link model. The amplification is the spread of the last follower's
speed as a multiple of the leader's, over the last two periods; the greatest over five periods of the swing is printed. Above 1
the platoon is string-unstable: the longer it is, the larger the swing at its end.

It prints a table and writes `docs/results/data/string-stability.json` and `.svg`. About two minutes of one core.
"""

import argparse
import json
from pathlib import Path

import matplotlib
import numpy as np
from matplotlib.figure import Figure

from envs.networks.platoon import HEADWAY, SPEED, STEP_S, Matrix, advance, ahead, optimal_speed
from topology.link.model import LinkModel, LinkSpec

FOLDER = Path(__file__).parents[1] / "docs" / "results" / "data"
FOLLOWERS, COPIES, SEED = 8, 16, 0
GAIN, SWING = 0.5, 0.5  # α = β; m/s
PERIODS = (5.0, 7.0, 10.0, 15.0, 25.0)  # s
DELAYS = (0.0, 0.1, 0.2, 0.3, 0.5, 0.7, 1.0)  # s
LOSSES = (0.0, 0.2, 0.5, 0.8)
WIRE_BYTES = 60  # of a STATE of five numbers


def closed_form(period: float, feed_forward: float = 0.0) -> float:
    """|G(iω)|^n of the linear law in continuous time, G = (γs² + βs + αk)/(s² + (α + β)s + αk) with k = v°'(20 m) = π/2."""
    s, stiff = 2j * np.pi / period, GAIN * np.pi / 2
    return float(abs((feed_forward * s**2 + GAIN * s + stiff) / (s**2 + 2 * GAIN * s + stiff)) ** FOLLOWERS)


def amplification(period: float, *, delay: float, loss: float, radar: bool, speaks: bool = True) -> float:
    """The spread of the last follower's speed as a multiple of the leader's, mean over copies.

    Args:
        period: Of the leader's swing, s.
        delay: Of every message, s.
        loss: Probability that a message is lost.
        radar: Whether a follower sees the speed of the vehicle ahead; otherwise the last message has it.
        speaks: Whether there are messages at all.
    """
    spec = LinkSpec(delay_s=delay, loss_prob=loss)
    links = [LinkModel([(0.0, spec)], copies=COPIES, seed=SEED, stream=(i, i + 1)) for i in range(FOLLOWERS)]
    shape = (COPIES, FOLLOWERS)
    h, v, u = np.full(shape, HEADWAY), np.full(shape, SPEED), np.zeros(shape)
    received = np.zeros((2, *shape)) + np.array([SPEED, 0.0])[:, None, None]  # speed and acceleration of the vehicle ahead
    posts: list[tuple[Matrix, Matrix]] = []  # (arrival, content) of messages that are on their way, oldest first
    swings = max(8, int(np.ceil(60.0 / period)))
    steps = round(swings * period / STEP_S)
    leader = SPEED + SWING * np.sin(2 * np.pi / period * STEP_S * np.arange(steps + 1))
    last = []
    for t in range(steps):
        now, next_ = np.full(COPIES, leader[t]), np.full(COPIES, leader[t + 1])
        said = np.stack([ahead(v, now), ahead(u, (next_ - now) / STEP_S)])
        if speaks:
            send = np.full(COPIES, t * STEP_S)
            posts.append((np.stack([link.carry(WIRE_BYTES, send, reliable=False).arrive for link in links], axis=1), said))
            for arrive, content in posts:
                received = np.where(arrive <= t * STEP_S + 1e-9, content, received)
            posts = [post for post in posts if (np.isfinite(post[0]) & (post[0] > t * STEP_S + 1e-9)).any()]
        speed = said[0] if radar else received[0]
        control = GAIN * (optimal_speed(h) - v) + GAIN * (speed - v) + (received[1] if speaks else 0.0)
        h, v, u = advance(h, v, control, now, next_)
        last.append(v[:, -1])
    kept = round(2 * period / STEP_S)
    return float(np.mean(np.std(last[-kept:], axis=0)) / np.std(leader[-kept:]))


def draw(data: dict[str, object], worst: dict[bool, list[list[float]]], silent: float) -> None:
    """The figure: one panel with radar, one without."""
    with matplotlib.rc_context({"svg.fonttype": "none", "svg.hashsalt": "kappahop", "font.size": 8}):
        figure = Figure(figsize=(7.0, 2.8), layout="constrained")
        for axes, radar in zip(figure.subplots(1, 2, sharey=True), (True, False), strict=True):
            for loss, values in zip(LOSSES, worst[radar], strict=True):
                axes.plot(DELAYS, values, marker="o", markersize=3, label=f"{100 * loss:.0f} % lost")
            axes.axhline(1.0, color="black", linewidth=0.8)
            if radar:
                axes.axhline(silent, color="grey", linestyle="--", linewidth=0.8, label="no messages")
            axes.set(yscale="log", xlabel="delay of a message [s]", title="with radar" if radar else "without radar")
            axes.legend(frameon=False)
            axes.grid(visible=True, linewidth=0.3)
        figure.axes[0].set_ylabel("amplification over 8 followers")
        figure.savefig(FOLDER / "string-stability.svg", metadata={"Date": None, "Creator": None})
    (FOLDER / "string-stability.json").write_text(json.dumps(data, indent=1) + "\n", encoding="utf-8")


def main() -> None:
    """Compute, print, store."""
    argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter).parse_args()

    def greatest(**how: float | bool) -> float:
        return max(amplification(period, **how) for period in PERIODS)  # type: ignore[arg-type]

    for period in PERIODS:
        found = amplification(period, delay=0.0, loss=0.0, radar=True, speaks=False)
        print(f"period {period:g} s, no messages: {found:.3f}; closed form {closed_form(period):.3f}")
    silent = greatest(delay=0.0, loss=0.0, radar=True, speaks=False)
    worst = {radar: [[greatest(delay=d, loss=p, radar=radar) for d in DELAYS] for p in LOSSES] for radar in (True, False)}
    for radar, rows in worst.items():
        print(f"\n| {'with' if radar else 'without'} radar: loss | " + " | ".join(f"{d:g} s" for d in DELAYS) + " |")
        print("|---|" + "---|" * len(DELAYS))
        for loss, row in zip(LOSSES, rows, strict=True):
            print(f"| {100 * loss:.0f} % | " + " | ".join(f"{value:.2f}" for value in row) + " |")
    data = {
        "command": "python benchmarks/string_stability.py", "delays_s": DELAYS, "losses": LOSSES, "periods_s": PERIODS,
        "followers": FOLLOWERS, "no_messages": silent, "with_radar": worst[True], "without_radar": worst[False],
    }  # fmt: skip
    draw(data, worst, silent)


if __name__ == "__main__":
    main()
