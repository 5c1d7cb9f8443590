"""Making a delta: what two images have in common, and the container that says so."""
