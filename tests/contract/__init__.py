"""Behaviour that every backend of a contract shows."""
