"""Graph files as people have them: one reader per format, and what all readers give."""
