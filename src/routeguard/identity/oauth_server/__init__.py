"""What other services ask the identity service: registered clients, introspection, what was revoked."""
