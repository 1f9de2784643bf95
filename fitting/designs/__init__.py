"""Which runs to buy: what is foreseen of them, and the set that leaves the least doubt."""
