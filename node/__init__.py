"""The agent process: what to send, when to act, how to learn."""
