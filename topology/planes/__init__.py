"""The three planes: peers, the world, control."""
