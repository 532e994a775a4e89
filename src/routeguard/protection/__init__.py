"""What decides on a request: the guard, the adapters of frameworks it stands in, and the checks of traffic."""
