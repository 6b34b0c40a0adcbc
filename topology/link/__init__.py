"""What a link does to a message: the model, presets, traces, and which link has which limits when."""
