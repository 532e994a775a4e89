"""The application `routeguard dev` runs: every kind of route once, each with its policy beside it."""
