"""The command: its verbs and what a person sees while they work."""
