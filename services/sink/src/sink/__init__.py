import os

from sales.memory import share_freed

# Before the first import of pyarrow, which reads it once: its own choice, the mimalloc 3 in its wheels, has crashed
# where fresh threads allocate (apache/arrow#50471, #50908), and a sink's threads do so in its first seconds.
# `pa.set_memory_pool` would leave out what Arrow allocates below Python, as the Parquet writer does.
os.environ.setdefault("ARROW_DEFAULT_MEMORY_POOL", "system")

# Also before pyarrow, which starts threads when it is imported: what the reader frees, the encoder takes.
share_freed()
