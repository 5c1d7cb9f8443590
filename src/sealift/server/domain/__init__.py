"""Pure decisions of the server."""
