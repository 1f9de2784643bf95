"""The table of runs, and where it comes from."""
