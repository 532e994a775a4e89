"""Sessions: who is signed in, where, since when, and how that ends."""
