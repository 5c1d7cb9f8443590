"""Boot controls, one file for each boot loader."""
