"""Peak days: which days are busy, in whose time zone, and by how much."""
