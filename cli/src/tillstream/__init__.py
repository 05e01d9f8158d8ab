import sink  # noqa: F401 (before any command imports pyarrow: it chooses the memory pool)
