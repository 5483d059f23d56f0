"""The courier, the worker and what lies between them, against real receivers and real stores."""
