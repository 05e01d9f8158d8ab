"""Whether the numbers are fresh and right, and where records wait: for the people who keep it running."""

from deploy.monitoring.dashboards.panels import choice, course, number, page
from grafana_foundation_sdk.builders.dashboard import Dashboard, Row

LANES = '{lane=~"$lane"}'
RATE = "$__rate_interval"


def pipeline() -> Dashboard:
    """From the stream to the board, to S3 and DynamoDB, and to the proof."""
    return (
        page(
            "tillstream-pipeline",
            "Tillstream: pipeline",
            "Are the numbers fresh, are they proved, and does everything that arrives get stored? The first row says "
            "it; the others say where it hangs.",
            span="1h",
        )
        .with_variable(choice("lane", "Lane", "label_values(tillstream_sink_lane_up, lane)"))
        .with_row(Row("Is all well?"))
        .with_panel(
            number(
                "Freshness",
                "Since the board was last written. Usually a tenth of a second.",
                "min(tillstream_processor_freshness_seconds)",
                unit="s",
                levels=(5, 30),
                runbook=["BoardStale"],
            )
        )
        .with_panel(
            number(
                "Behind the stream",
                "Age of the last message that was read, in the partition that is furthest behind; 0 at the end.",
                "max(tillstream_processor_lag_seconds)",
                unit="s",
                levels=(30, 60),
                runbook=["BoardBehind", "ProcessorFallsBehind"],
            )
        )
        .with_panel(
            number(
                "Messages a second",
                "What the processor reads.",
                f"sum(rate(tillstream_processor_messages_total[{RATE}]))",
                unit="short",
                runbook=["NoOrders"],
            )
        )
        .with_panel(
            number(
                "Differences",
                "What the auditor's last rounds found, of the windows and of everything that is stored.",
                "max(tillstream_auditor_differences)",
                unit="short",
                levels=(None, 1),
                runbook=["NumbersDiffer"],
            )
        )
        .with_panel(
            number(
                "Last proof",
                "Since a round of the auditor last compared something.",
                "time() - max(tillstream_auditor_last_success_timestamp_seconds)",
                unit="s",
                levels=(300, 900),
                runbook=["NotProven"],
            )
        )
        .with_panel(
            number(
                "Retention used",
                "Of the reader that is furthest behind: the share of RETENTION_HOURS. Above 100 % orders are lost.",
                "max(tillstream:retention_used:ratio)",
                unit="percentunit",
                levels=(0.5, 0.8),
                runbook=["RetentionHalfUsed", "RetentionNearlyUsed"],
            )
        )
        .with_row(Row("Generator"))
        .with_panel(
            course(
                "Sent a second, by kind",
                "What the generator hands to the stream: good orders, and what goes wrong on request. Nothing where a "
                "shop sends its own.",
                (f"sum by (kind) (rate(tillstream_generator_records_total[{RATE}]))", "{{kind}}"),
                unit="short",
                stacked=True,
            )
        )
        .with_panel(
            course(
                "Records that wait for the stream",
                "Sent by the generator and not acknowledged. They wait in its memory while the broker is away.",
                ("tillstream_generator_unacknowledged_records", "{{instance}}"),
                unit="short",
                runbook=["NoOrders"],
            )
        )
        .with_row(Row("Processor"))
        .with_panel(
            course(
                "Messages a second, by what they were",
                "Accepted orders, repetitions of one, and dead letters.",
                (f"sum by (outcome) (rate(tillstream_processor_events_total[{RATE}]))", "{{outcome}}"),
                unit="short",
                stacked=True,
                runbook=["NoOrders"],
            )
        )
        .with_panel(
            course(
                "Behind the stream",
                "Messages not yet read. Kinesis does not count them; the age of the last message read is there always.",
                ("tillstream_processor_lag_messages >= 0", "messages"),
                unit="short",
                runbook=["BoardBehind", "ProcessorFallsBehind"],
            )
        )
        .with_panel(
            course(
                "Freshness and age",
                "Since the board was last written; how old the last message read is; and how old the latest order is.",
                ("tillstream_processor_freshness_seconds", "since the last tick"),
                ("tillstream_processor_lag_seconds", "behind the stream"),
                ("time() - tillstream_processor_max_event_timestamp_seconds", "age of the latest order"),
                unit="s",
                runbook=["BoardStale", "BoardBehind"],
            )
        )
        .with_panel(
            course(
                "Publishing",
                "How long it takes to write one tick to Redis.",
                (_quantile(0.5, "publish"), "half"),
                (_quantile(0.99, "publish"), "99 of 100"),
                unit="s",
                levels=(None, 0.5),
                runbook=["PublishSlow", "FarSideAway"],
            )
        )
        .with_panel(
            course(
                "Snapshots",
                "How long it takes to make the state durable, while nothing else is done.",
                (_quantile(0.5, "snapshot"), "half"),
                (_quantile(0.99, "snapshot"), "99 of 100"),
                unit="s",
                levels=(None, 0.5),
                runbook=["SnapshotsSlow", "SnapshotsStopped"],
            )
        )
        .with_panel(
            course(
                "Ticks, snapshots and new tries a second",
                "Ticks written, snapshots made, and tries because Redis or a stream was away.",
                (f"rate(tillstream_processor_publish_seconds_count[{RATE}])", "ticks"),
                (f"rate(tillstream_processor_snapshot_seconds_count[{RATE}])", "snapshots"),
                (f"rate(tillstream_processor_retries_total[{RATE}])", "new tries"),
                unit="short",
                runbook=["SnapshotsStopped", "FarSideAway"],
            )
        )
        .with_panel(
            course(
                "Dead letters a second, by reason",
                "Messages that can't be accepted.",
                (f"sum by (reason) (rate(tillstream_processor_dead_letters_total[{RATE}]))", "{{reason}}"),
                unit="short",
                stacked=True,
                runbook=["DeadLettersMany", "DeadLettersNearLimit"],
            )
        )
        .with_panel(
            course(
                "Share of dead letters",
                "Of the messages of the last ten minutes.",
                ("tillstream:dead_letters:ratio", "dead letters"),
                unit="percentunit",
                levels=(0.05, 0.25),
                runbook=["DeadLettersMany", "DeadLettersNearLimit"],
            )
        )
        .with_row(Row("Sink"))
        .with_panel(
            course(
                "Stored a second, by lane",
                "Orders, rollups and dead letters that are in S3 or DynamoDB for good.",
                (f"sum by (lane) (rate(tillstream_sink_stored_total{LANES}[{RATE}]))", "{{lane}}"),
                unit="short",
            )
        )
        .with_panel(
            course(
                "Age of what is not stored, by lane",
                "Of the oldest message; the archive stores each within about a minute (ROTATE_SECONDS).",
                (f"max by (lane) (tillstream_sink_lag_seconds{LANES})", "{{lane}}"),
                unit="s",
                runbook=["ArchiveBehind", "IndexBehind"],
            )
        )
        .with_panel(
            course(
                "Retention used, by reader",
                "How much of the stream's memory each reader has used up.",
                ("tillstream:retention_used:ratio", "{{reader}}"),
                unit="percentunit",
                levels=(0.5, 0.8),
                runbook=["RetentionHalfUsed", "RetentionNearlyUsed"],
            )
        )
        .with_panel(
            course(
                "Waiting and throttled a second",
                "Tries because a store was away, and requests that DynamoDB put off.",
                (f"sum by (lane) (rate(tillstream_sink_retries_total{LANES}[{RATE}]))", "{{lane}}: store away"),
                (f"sum by (table) (rate(tillstream_sink_throttled_total[{RATE}]))", "{{table}}: put off"),
                unit="short",
                runbook=["StoreAway", "IndexThrottled"],
            )
        )
        .with_panel(
            course(
                "Lanes that run",
                "How many sinks run each lane. On Kafka they share the partitions.",
                (f"sum by (lane) (tillstream_sink_lane_up{LANES})", "{{lane}}"),
                unit="short",
                runbook=["SinkLaneDown"],
            )
        )
        .with_panel(
            course(
                "Bytes stored a second",
                "Of Parquet objects in S3.",
                (f"sum by (lane) (rate(tillstream_sink_object_bytes_total{LANES}[{RATE}]))", "{{lane}}"),
                unit="Bps",
            )
        )
        .with_row(Row("Proof"))
        .with_panel(
            course(
                "Numbers compared and found different",
                "By the auditor's last round of the windows, and of everything that is stored.",
                ("tillstream_auditor_compared", "compared (everything: {{everything}})"),
                ("tillstream_auditor_differences", "different (everything: {{everything}})"),
                unit="short",
                runbook=["NumbersDiffer"],
            )
        )
        .with_panel(
            course(
                "Rounds",
                "How long the auditor's last rounds took, and how old a tick is that the sink has not stored yet.",
                ("tillstream_auditor_round_seconds", "a round (everything: {{everything}})"),
                ("tillstream_auditor_waiting_seconds", "waiting for the sink"),
                unit="s",
                runbook=["NotProven"],
            )
        )
    )


def _quantile(share: float, what: str) -> str:
    buckets = f"rate(tillstream_processor_{what}_seconds_bucket[{RATE}])"
    return f"histogram_quantile({share}, sum by (le) ({buckets}))"
