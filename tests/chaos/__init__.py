"""The processor under faults: a small shop on this machine, and everything that can happen to it, again and again.

``world`` is the shop, ``faults`` are what happens, ``judge`` recomputes every number from the topics, ``campaign`` puts
them together and ``__main__`` is ``make chaos-processor``.

The sink has schedules instead: ``schedules`` draws and runs one, ``sinks`` is ``make chaos-sink``.
"""
