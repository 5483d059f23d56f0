"""Limits: how fast an endpoint may be called."""
