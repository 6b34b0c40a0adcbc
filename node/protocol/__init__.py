"""What an agent sends, to which agents, and when it acts and learns. It decides; no I/O, no torch."""
