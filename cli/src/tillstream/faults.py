"""What may be wrong outside when a command reads, by what helps."""

import duckdb
import redis
from botocore.exceptions import BotoCoreError, ClientError

from sales.board import BoardError
from sales.streams import StreamError
from sink.store import StoreError
from tillstream.stored import NotCoveredError, StoredError

AWAY = (NotCoveredError, StreamError, redis.RedisError, BotoCoreError, ClientError)
"""Trying again may help."""

UNABLE = (StoredError, StoreError, BoardError, duckdb.Error, OSError)
"""Trying again does not."""
