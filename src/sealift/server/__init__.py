"""Stateless workers over a store and a blob port."""
