"""The worlds and the process that steps them."""
