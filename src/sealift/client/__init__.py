"""The operator API as typed Python."""
