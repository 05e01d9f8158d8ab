"""Orders as tables of numbers, decoded without a Python object for each: the processor's way of reading them.

The tier that needs numba is `sales.columnar.scanner`; without it all of this works, five times slower.
"""
