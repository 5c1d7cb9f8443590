"""Measurements of Sealift and of its peers, all in one shape (common.py)."""
