"""The cache: endpoint configuration where the hot path needs it."""
