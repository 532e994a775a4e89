"""API keys: for programs that act for a user or an organization."""
