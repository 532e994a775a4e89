"""Checks that need no identity: forgery, limits, bodies, headers, hosts, networks, duplicates."""
