"""E-mail addresses: proven, changed, and never confirmed to strangers."""
