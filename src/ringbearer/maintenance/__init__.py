"""Maintenance: what must happen in the background, so that nothing is stuck and nothing is kept for ever."""
