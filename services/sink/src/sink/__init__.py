import os

# Before the first import of pyarrow, which reads it once: its own choice, the mimalloc 3 in its wheels, has crashed
# where fresh threads allocate (apache/arrow#50471, #50908), and a sink's threads do so in its first seconds.
# `pa.set_memory_pool` would leave out what Arrow allocates below Python, as the Parquet writer does. It costs nothing:
# `benchmarks.sink` carries 217,000 order lines a CPU second with it, 208,000 without, and peaks 47 MB lower.
os.environ.setdefault("ARROW_DEFAULT_MEMORY_POOL", "system")
