"""Combiners (P 3.2): one protocol, one name table."""
