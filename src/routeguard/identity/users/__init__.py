"""Users: who they are, what they may become, and the mailed tokens that prove an address."""
