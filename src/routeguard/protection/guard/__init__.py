"""Protects any app: marks, compiles and enforces policies. Knows the core only."""
