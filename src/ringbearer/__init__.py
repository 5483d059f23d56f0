"""Ringbearer: a self-hosted webhook delivery engine."""

__version__ = "0.1.0"
