"""TPU pods without one: their shapes and prices, programs compiled for them, commands that rent them."""
