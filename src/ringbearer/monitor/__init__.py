"""The monitor: what the system does, as figures."""
