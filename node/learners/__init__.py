"""How agents learn: on-policy, off-policy, on a model, or led by the coordinator."""
