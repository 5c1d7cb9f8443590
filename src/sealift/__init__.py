"""Sealift: secure over-the-air updates for devices nobody can reach."""
