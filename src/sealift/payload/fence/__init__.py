"""Making behind a fence: processes with limits, which can only lose what they make."""
