"""Boot loaders in memory, one file each, over flash that can lose its power."""
