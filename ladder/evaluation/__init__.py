"""What is measured of a model, and how it becomes a table and a report."""
