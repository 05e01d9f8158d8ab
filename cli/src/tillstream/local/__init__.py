"""Real servers on this machine: Redis, the AWS protocol, Kafka, each a child process on a free loopback port.

``aws``, ``kafka`` and ``redis`` each have a function ``start(nursery) -> Server``, which returns once the server
answers. All servers end with the nursery, or with the process that holds it, however that dies.
"""
