"""The command line against prepared answers; `tests/api` has what runs against the API itself."""
