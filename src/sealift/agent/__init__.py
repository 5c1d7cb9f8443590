"""What runs on the device: core, cryptography and the standard library."""
