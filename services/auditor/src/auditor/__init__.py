"""Verifies the live numbers again and again, and tells of every difference."""
