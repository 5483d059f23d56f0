"""The queue: which delivery is next, and who holds it."""
