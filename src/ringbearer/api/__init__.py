"""The HTTP door: management of suppliers, endpoints, deliveries and keys, and the description of all routes."""
