"""Access tokens others can verify, and refresh tokens that die when they are stolen."""
