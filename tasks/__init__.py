"""Tasks: corpora and downstream suites as seqio Tasks. A leaf: imports nothing else of this project."""
