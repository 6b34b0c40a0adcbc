"""The command: start, watch, record, report."""
