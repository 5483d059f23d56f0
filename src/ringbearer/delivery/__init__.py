"""Delivery: a claimed batch is admitted, signed, sent and judged."""
