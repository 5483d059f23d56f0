"""The management API on a real store, over real HTTP."""
