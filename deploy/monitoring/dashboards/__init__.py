"""What Grafana and the Prometheus operator are given, as code.

``python -m deploy.monitoring.dashboards`` writes it beside this folder: ``grafana/dashboards/*.json`` and
``prometheusrule.yaml``. They are committed, so that who mounts them needs no Python; a test holds them against this.
"""
