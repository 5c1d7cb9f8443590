"""The vendor's offline desk: holds the keys, opens no socket."""
