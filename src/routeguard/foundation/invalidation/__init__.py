"""What was invalidated lately, and what may be remembered until it is."""
