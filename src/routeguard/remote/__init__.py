"""The guard in an app whose identity service runs elsewhere."""
