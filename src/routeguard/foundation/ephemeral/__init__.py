"""Facts that may be lost: counters, leases, once-only marks and caches, in memory or on Valkey."""
