"""Thin faces over the services; authentication and error mapping."""
