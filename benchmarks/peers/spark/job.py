"""Spark Structured Streaming: hopping windows by ``window()``, a query for each of our five lengths, update mode, and
``foreachBatch`` writes the window that ends with the topic's last pane to Redis."""

import os
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path

import redis
from pyspark.sql import Column, DataFrame, SparkSession
from pyspark.sql import functions as f

WINDOWS = {"1m": (60, 1), "5m": (300, 5), "15m": (900, 15), "1h": (3600, 60), "24h": (86_400, 900)}
"""name to length and slide, seconds"""
LATEST = "1 day"
"""Partitions are read each at its own pace: nothing is late."""
CONNECTOR = ("spark-sql-kafka", "spark-token-provider", "kafka-clients", "commons-pool2")
SCHEMA = """
    type STRING, event_time TIMESTAMP, country STRING,
    lines ARRAY<STRUCT<product_id: STRING, category: STRING, quantity: BIGINT, unit_amount: BIGINT,
                       discount_percent: BIGINT>>
"""
REGIONS = dict(pair.split("=") for pair in os.environ["REGIONS"].split(","))
AS_OF = int(os.environ["AS_OF"]) // 1000
PREFIX = os.environ["PREFIX"]


def main() -> None:
    """Runs the queries until it is killed."""
    jars = [str(path) for path in Path(os.environ["JARS"]).glob("*.jar") if path.name.startswith(CONNECTOR)]
    spark = (
        SparkSession.builder.master("local[1]")
        .config("spark.jars", ",".join(jars))
        .config("spark.ui.enabled", "false")
        .config("spark.driver.memory", "6g")
        .config("spark.sql.session.timeZone", "UTC")
        .config("spark.sql.shuffle.partitions", "1")
        .getOrCreate()
    )
    spark.sparkContext.setLogLevel("ERROR")
    sold = parts(spark)
    for window, (length, slide) in WINDOWS.items():
        summed = sold.groupBy(f.window("event_time", f"{length} seconds", f"{slide} seconds"), "name").agg(
            *(f.sum(measure).alias(measure) for measure in ("units", "revenue", "orders", "sales", "events"))
        )
        end = AS_OF - AS_OF % slide + slide
        newest = summed.where(f.col("window.end") == f.lit(datetime.fromtimestamp(end, UTC))).drop("window")
        place = f"{os.environ['STATE']}/{window}"
        newest.writeStream.outputMode("update").option("checkpointLocation", place).foreachBatch(show(window)).start()
    spark.streams.awaitAnyTermination()


def parts(spark: SparkSession) -> DataFrame:
    """What each line adds to each name."""
    messages = (
        spark.readStream.format("kafka")
        .option("kafka.bootstrap.servers", os.environ["BOOTSTRAP"])
        .option("subscribe", os.environ["TOPIC"])
        .option("startingOffsets", "earliest")
        .load()
    )
    order = messages.select(f.from_json(f.col("value").cast("string"), SCHEMA).alias("order")).select("order.*")
    region_of = f.create_map(*(f.lit(text) for pair in REGIONS.items() for text in pair))
    line = (
        order.withWatermark("event_time", LATEST)
        .select("*", f.transform("lines", lambda line: line["category"]).alias("categories"), f.posexplode("lines"))
        .select("*", "col.*")
        .withColumn("sale", f.when(f.col("type") == "sale", 1).otherwise(0))
        .withColumn("sign", 2 * f.col("sale") - 1)
        .withColumn("gross", f.col("quantity") * f.col("unit_amount"))
        .withColumn("discount", f.expr("(gross * coalesce(discount_percent, 0) + 50) div 100"))
        .withColumn("net", f.col("gross") - f.col("discount"))
        .withColumn("head", (f.col("pos") == 0).cast("int"))
        .withColumn("first", f.expr("int(array_position(categories, category) = pos + 1)"))
    )

    def named(group: str, member: Column, once: Column) -> Column:
        return f.struct(f.concat(f.lit(f"{group}|"), member).alias("name"), once.alias("once"))

    names = f.array(
        named("product", f.col("product_id"), f.lit(0)),
        named("category", f.col("category"), f.col("first")),
        named("country", f.col("country"), f.col("head")),
        named("region", region_of[f.col("country")], f.col("head")),
        named("aov", f.lit(""), f.col("head")),
    )
    return line.withColumn("named", f.explode(names)).select(
        "event_time",
        "named.name",
        (f.col("sign") * f.col("quantity")).alias("units"),
        (f.col("sign") * f.col("net")).alias("revenue"),
        (f.col("sale") * f.col("named.once")).alias("orders"),
        (f.col("sale") * f.col("net")).alias("sales"),
        f.col("named.once").alias("events"),
    )


def show(window: str) -> Callable[[DataFrame, int], None]:
    """A function that writes what a batch has changed in that window."""
    client = redis.Redis.from_url(os.environ["REDIS_URL"])

    def write(batch: DataFrame, _number: int) -> None:
        with client.pipeline() as pipe:
            for row in batch.collect():
                group, _, member = row["name"].partition("|")
                if group != "aov":
                    for measure in ("units", "revenue") if group == "product" else ("units", "revenue", "orders"):
                        pipe.zadd(f"{PREFIX}{window}:{group}:{measure}", {member: row[measure]})
                    continue
                totals = {
                    "orders": row["orders"],
                    "sales_minor": row["sales"],
                    "returns": row["events"] - row["orders"],
                    "refunded_minor": row["sales"] - row["revenue"],
                    "revenue_minor": row["revenue"],
                    "units": row["units"],
                }
                pipe.hset(f"{PREFIX}{window}:aov", mapping=totals)
            pipe.execute()

    return write


if __name__ == "__main__":
    main()
