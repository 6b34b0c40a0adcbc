"""Worlds whose physics is a graph."""
