"""The words of the house: what a supplier, an endpoint, an event, a delivery and an attempt are."""
