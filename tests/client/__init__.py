"""The clients of the identity service, against the service."""
