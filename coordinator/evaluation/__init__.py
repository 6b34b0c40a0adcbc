"""Judging a team while it trains."""
