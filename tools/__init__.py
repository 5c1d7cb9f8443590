"""Programs for working on Sealift itself; not part of the distribution."""
