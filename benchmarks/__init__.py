"""Figures, measured against each framework's own bare handler in the same run."""
