"""What to run: the schema of every setting, the recipe table, the shipped scenario files."""
