"""One run: planning, starting, supervising, recording."""
