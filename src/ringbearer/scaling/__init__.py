"""Scaling: the right number of workers, before the rush and after it."""
