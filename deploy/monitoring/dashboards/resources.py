"""What each process takes, and what it may take: for the people who give it room."""

from deploy.monitoring.dashboards.panels import choice, course, page
from grafana_foundation_sdk.builders.dashboard import Dashboard, Row

CHOSEN = '{job="tillstream", service=~"$service"}'
NAME = "{{service}} {{instance}}"


def resources() -> Dashboard:
    """Processor time, memory, files and starts of every process, and the processor's disk."""
    return (
        page(
            "tillstream-resources",
            "Tillstream: resources",
            "What each process takes of what it may take.",
            span="3h",
        )
        .with_variable(choice("service", "Service", 'label_values(up{job="tillstream"}, service)'))
        .with_row(Row("Processes"))
        .with_panel(
            course(
                "Processor time",
                "Cores that each process keeps busy. One process of the processor can't use more than one.",
                (f"rate(process_cpu_seconds_total{CHOSEN}[$__rate_interval])", NAME),
                unit="short",
            )
        )
        .with_panel(
            course(
                "Memory",
                "Resident memory.",
                (f"process_resident_memory_bytes{CHOSEN}", NAME),
                unit="bytes",
                runbook=["MemoryNearLimit"],
            )
        )
        .with_panel(
            course(
                "Memory, as a share of what it may take",
                "Of the container, as the system counts it before it kills. Nothing where there is no limit.",
                (f"tillstream_memory_used_bytes{CHOSEN} / tillstream_memory_limit_bytes{CHOSEN}", NAME),
                unit="percentunit",
                levels=(None, 0.9),
                runbook=["MemoryNearLimit"],
            )
        )
        .with_panel(
            course(
                "Open files",
                "Files and connections.",
                (f"process_open_fds{CHOSEN}", NAME),
                unit="short",
                runbook=["OpenFilesNearLimit"],
            )
        )
        .with_panel(
            course(
                "Age",
                "Since each process began: where a line falls to 0 it was started again.",
                (f"time() - process_start_time_seconds{CHOSEN}", NAME),
                unit="s",
                runbook=["RestartsOften", "TargetDown"],
            )
        )
        .with_panel(
            course(
                "Targets that answer",
                "1: it gives metrics; 0: it does not.",
                (f"up{CHOSEN}", NAME),
                unit="short",
                runbook=["TargetDown"],
            )
        )
        .with_row(Row("What the processor and the sink hold"))
        .with_panel(
            course(
                "Room on the disk of RECOVERY_DIR",
                "Free, as a share of the disk. When it is full the processor ends.",
                (
                    "tillstream_processor_recovery_disk_free_bytes / tillstream_processor_recovery_disk_bytes",
                    "free",
                ),
                unit="percentunit",
                runbook=["RecoveryDiskFillsUp", "RecoveryDiskFull"],
            )
        )
        .with_panel(
            course(
                "Snapshots written",
                "Bytes of the processor's state a second.",
                ("rate(tillstream_processor_snapshot_bytes_total[$__rate_interval])", "written"),
                unit="Bps",
            )
        )
        .with_panel(
            course(
                "Memory of duplicates",
                "What the processor remembers to know an order again, by slot.",
                ("tillstream_processor_identities_memory_bytes", "{{slot}}"),
                unit="bytes",
                stacked=True,
            )
        )
        .with_panel(
            course(
                "Messages that wait to be stored",
                "Memory that the sink holds them in, by lane; BUFFER_BYTES bounds it.",
                ("sum by (lane) (tillstream_sink_held_bytes)", "{{lane}}"),
                unit="bytes",
                stacked=True,
            )
        )
    )
