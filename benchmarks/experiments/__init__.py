"""Questions, the runs that answer them, and a page for each: `python -m benchmarks.experiments`."""
