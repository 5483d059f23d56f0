"""The pages: what is going on, seen and steered in a browser; served by the API process, behind a login."""
