"""Questions in: downstream tasks and validation sets, and the scores that come of them."""
