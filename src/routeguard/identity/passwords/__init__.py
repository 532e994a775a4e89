"""Passwords: hashed slowly, checked in constant work, never shown and never too clever."""
