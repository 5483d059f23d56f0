"""The command `ringbearer`: one module for each family of commands."""
