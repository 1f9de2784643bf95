"""Logs of others' training, read into a testbed."""
