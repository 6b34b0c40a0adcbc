"""Worlds of others as worlds of ours, and the other way round."""
