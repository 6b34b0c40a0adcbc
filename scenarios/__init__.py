"""What to run: the schema of every knob, the recipe table, the shipped scenario files."""
