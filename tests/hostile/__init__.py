"""Receivers and networks that do what they should not, against the real courier."""
