"""Results as pages, charts, tables and films."""
