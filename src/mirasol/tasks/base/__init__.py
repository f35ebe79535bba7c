"""Shared by all data sets: reading annotation files, importing, protocols."""
