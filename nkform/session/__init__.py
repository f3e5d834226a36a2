"""What a user can do, without a terminal: the Python API (docs/api.md)."""
