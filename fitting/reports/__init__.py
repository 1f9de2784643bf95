"""A fitted law as pages, tables and figures."""
