"""Kafka without native code: kafka-python, for machines where librdkafka can't be had. Slower, the same answers."""

from typing import Any

from sales.settings import StreamSettings


def kafka_python_settings(settings: StreamSettings) -> dict[str, Any]:
    """What every client needs: where the brokers are and how to speak to them."""
    config: dict[str, Any] = {
        "bootstrap_servers": settings.kafka_bootstrap_servers.split(","),
        "client_id": "tillstream",
        "security_protocol": settings.kafka_security_protocol,
    }
    if settings.kafka_security_protocol.startswith("SASL"):
        config["sasl_mechanism"] = settings.kafka_sasl_mechanism
        config["sasl_plain_username"] = settings.kafka_sasl_username
        config["sasl_plain_password"] = settings.kafka_sasl_password.get_secret_value()
    if settings.kafka_ssl_ca_file:
        config["ssl_cafile"] = settings.kafka_ssl_ca_file
    return config


PurePythonReader: Any = None
PurePythonMember: Any = None
PurePythonWriter: Any = None
