"""Learning from the samples of the current policy."""
