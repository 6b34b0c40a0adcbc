"""What a run is set up with, and what it leaves on disk: plan, database, checkpoints, sinks."""
