"""Real servers on this machine: Redis, the AWS protocol, Kafka, each a child process on a free loopback port.

Each module has one function, ``start(nursery) -> Server``, which returns once the server answers. All of them end with
the nursery, or with the process that holds it, however that dies.
"""
