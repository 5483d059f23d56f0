"""Every route, as data, family by family; `api.operations` puts them together."""
