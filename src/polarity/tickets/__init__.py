"""Signed masks: taken from one network, kept in a small file, applied to another."""
