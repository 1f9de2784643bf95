"""What fitting leaves on disk: fitted laws, frozen predictions, and what made them."""
