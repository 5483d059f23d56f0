"""The HTTP door: events come in, and everything is managed; every route is described."""
