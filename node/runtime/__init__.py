"""Carries out what the protocol decides, over real links."""
