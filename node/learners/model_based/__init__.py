"""Learning a model of the world, and from it."""
