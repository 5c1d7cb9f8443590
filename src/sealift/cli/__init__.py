"""The sealift program: one module for each group of commands."""
