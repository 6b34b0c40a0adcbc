"""What an agent sends, to whom, and when it acts and learns. It decides; no I/O, no torch."""
