"""Models: the decoder, its accounting. A leaf: imports nothing else of this project."""
