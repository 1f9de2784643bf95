"""Where many runs are carried out, and what a person sees of it."""
