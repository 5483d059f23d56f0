"""Scaling: how many workers there should be, why, and who starts and drains them."""
