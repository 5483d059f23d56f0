"""The pages that people keep open."""
