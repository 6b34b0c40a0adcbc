"""Many runs: sweeps, statistics, comparison, export."""
