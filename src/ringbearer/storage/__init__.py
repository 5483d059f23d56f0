"""The durable store: the truth of every event, delivery and endpoint."""
