"""Databases, buckets, brokers and authorities, one file each."""
