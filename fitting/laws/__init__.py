"""What a law is, every law by name, and what a fit minimises."""
