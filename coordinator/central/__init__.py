"""The central process of centralised baselines."""
