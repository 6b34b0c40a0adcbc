"""How many message copies per second the link model carries, by preset, on one core.

One link, E copies, messages of 60 to 200 bytes, one every 50 ms, as STATE messages come. *in order*: each is sent after the
one before. *out of order*: every other message is sent before the one handed in just before it, as happens to relays.
CPU time of this process, best of several repetitions.
"""

import argparse
import time

import numpy as np
from rich.console import Console
from rich.table import Table

from topology.link.model import LinkModel
from topology.link.presets import PRESETS

PERIOD_S = 0.05
LATE_S = 0.01


def rate(preset: str, copies: int, messages: int, *, reliable: bool, in_order: bool) -> float:
    """Message copies per second of CPU time."""
    link = LinkModel([(0.0, PRESETS[preset].spec)], copies=copies, seed=0, stream=(0, 1))
    rng = np.random.default_rng(0)
    sizes = [int(size) for size in rng.integers(60, 201, messages)]
    steps = np.arange(messages) // 2 * 2 * PERIOD_S
    late = np.where(np.arange(messages) % 2 == 0, 0.0 if in_order else LATE_S, LATE_S if in_order else 0.0)
    sends = [np.full(copies, send) for send in steps + late]
    begun = time.process_time()
    for step, size, send in zip(steps.tolist(), sizes, sends, strict=True):
        link.forget(step)
        link.carry(size, send, reliable=reliable)
    return messages * copies / (time.process_time() - begun)


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--copies", type=int, default=10, help="E, copies per message (default %(default)s)")
    parser.add_argument("--messages", type=int, default=4000, help="messages per repetition (default %(default)s)")
    parser.add_argument("--repeat", type=int, default=3, help="repetitions, of which the best counts (default %(default)s)")
    parser.add_argument("--preset", choices=list(PRESETS), action="append", help="only this preset; may be given several times")
    arguments = parser.parse_args()
    table = Table(title=f"message copies per second of CPU time, E = {arguments.copies}")
    for heading in ("preset", "in order", "out of order", "reliable"):
        table.add_column(heading, justify="left" if heading == "preset" else "right")
    for preset in arguments.preset or PRESETS:
        cells = []
        for reliable, in_order in ((False, True), (False, False), (True, True)):
            rates = [
                rate(preset, arguments.copies, arguments.messages, reliable=reliable, in_order=in_order)
                for _ in range(arguments.repeat)
            ]
            cells.append(f"{max(rates):,.0f}")
        table.add_row(preset, *cells)
    Console(width=100).print(table)


if __name__ == "__main__":
    main()
