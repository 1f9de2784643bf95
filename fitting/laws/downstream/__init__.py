"""Laws of what a loss, or more tries, or more ability, gives downstream."""
