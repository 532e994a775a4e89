"""Framework adapters: where each framework has chosen a handler and not yet run it."""
