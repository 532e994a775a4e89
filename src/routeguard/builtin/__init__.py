"""What is built in: the list of our features, and the API of `Routeguard` that they stand behind.

Here and nowhere else are slices named: what assembles an application knows features as values only.
"""
