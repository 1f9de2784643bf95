"""One run: its step, its data, its checkpoints, and the loop through them."""
