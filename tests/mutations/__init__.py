"""Proof of the tests: each guard of the sink's promise is taken away in a copy, and a test has to fail by it."""
