import com.fasterxml.jackson.databind.JsonNode;
import com.fasterxml.jackson.databind.ObjectMapper;
import java.io.IOException;
import java.io.UncheckedIOException;
import java.net.URI;
import java.nio.ByteBuffer;
import java.time.Duration;
import java.time.Instant;
import java.util.ArrayList;
import java.util.HashMap;
import java.util.LinkedHashMap;
import java.util.List;
import java.util.Map;
import java.util.Properties;
import org.apache.kafka.clients.consumer.ConsumerRecord;
import org.apache.kafka.common.serialization.Serde;
import org.apache.kafka.common.serialization.Serdes;
import org.apache.kafka.streams.KafkaStreams;
import org.apache.kafka.streams.KeyValue;
import org.apache.kafka.streams.StreamsBuilder;
import org.apache.kafka.streams.StreamsConfig;
import org.apache.kafka.streams.kstream.Consumed;
import org.apache.kafka.streams.kstream.KGroupedStream;
import org.apache.kafka.streams.kstream.Materialized;
import org.apache.kafka.streams.kstream.Repartitioned;
import org.apache.kafka.streams.kstream.TimeWindows;
import org.apache.kafka.streams.processor.TimestampExtractor;
import org.apache.kafka.streams.state.Stores;
import redis.clients.jedis.JedisPooled;

/**
 * Kafka Streams: an order becomes a record for each product, category, country, region and for the shop, repartitioned
 * by that name, with one hopping window for each of ours. The window that ends with the topic's last pane goes to Redis.
 */
public final class Shop {
    private static final Map<String, Duration[]> WINDOWS = new LinkedHashMap<>();

    static {
        WINDOWS.put("1m", new Duration[] {Duration.ofMinutes(1), Duration.ofSeconds(1)});
        WINDOWS.put("5m", new Duration[] {Duration.ofMinutes(5), Duration.ofSeconds(5)});
        WINDOWS.put("15m", new Duration[] {Duration.ofMinutes(15), Duration.ofSeconds(15)});
        WINDOWS.put("1h", new Duration[] {Duration.ofHours(1), Duration.ofMinutes(1)});
        WINDOWS.put("24h", new Duration[] {Duration.ofHours(24), Duration.ofMinutes(15)});
    }

    /** Partitions are read each at its own pace: nothing is late. */
    private static final Duration GRACE = Duration.ofHours(2);

    private static final int UNITS = 0, REVENUE = 1, ORDERS = 2, SALES = 3, EVENTS = 4, COLUMNS = 5;
    private static final ObjectMapper JSON = new ObjectMapper();

    /** When the order was placed. */
    public static final class EventTime implements TimestampExtractor {
        @Override
        public long extract(ConsumerRecord<Object, Object> record, long partitionTime) {
            return record.value() instanceof JsonNode order
                    ? Instant.parse(order.get("event_time").asText()).toEpochMilli()
                    : record.timestamp();
        }
    }

    private Shop() {}

    /** Runs until it is killed. */
    public static void main(String[] arguments) {
        Map<String, String> env = System.getenv();
        Map<String, String> regions = new HashMap<>();
        for (String pair : env.get("REGIONS").split(",")) {
            regions.put(pair.substring(0, 2), pair.substring(3));
        }
        long asOf = Long.parseLong(env.get("AS_OF"));
        JedisPooled redis = new JedisPooled(URI.create(env.get("REDIS_URL")));

        StreamsBuilder builder = new StreamsBuilder();
        KGroupedStream<String, long[]> grouped = builder
                .stream(env.get("TOPIC"), Consumed.with(Serdes.ByteArray(), orders()).withTimestampExtractor(new EventTime()))
                .flatMap((key, order) -> parts(order, regions))
                .repartition(Repartitioned.with(Serdes.String(), sums()).withName("parts"))
                .groupByKey();
        WINDOWS.forEach((name, window) -> {
            long step = window[1].toMillis();
            long end = asOf - asOf % step + step;
            grouped.windowedBy(TimeWindows.ofSizeAndGrace(window[0], GRACE).advanceBy(window[1]))
                    .aggregate(() -> new long[COLUMNS], (key, part, sum) -> add(part, sum),
                            Materialized.<String, long[]>as(Stores.persistentWindowStore(
                                            "sums-" + name, window[0].plus(GRACE), window[0], false))
                                    .withKeySerde(Serdes.String())
                                    .withValueSerde(sums())
                                    .withCachingEnabled())
                    .toStream()
                    .filter((key, sum) -> key.window().end() == end)
                    .foreach((key, sum) -> show(redis, env.get("PREFIX") + name, key.key(), sum));
        });

        Properties settings = new Properties();
        settings.put(StreamsConfig.APPLICATION_ID_CONFIG, env.get("GROUP"));
        settings.put(StreamsConfig.BOOTSTRAP_SERVERS_CONFIG, env.get("BOOTSTRAP"));
        settings.put(StreamsConfig.STATE_DIR_CONFIG, env.get("STATE"));
        settings.put(StreamsConfig.COMMIT_INTERVAL_MS_CONFIG, 1000);
        settings.put(StreamsConfig.STATESTORE_CACHE_MAX_BYTES_CONFIG, 512L << 20);
        settings.put(StreamsConfig.consumerPrefix("auto.offset.reset"), "earliest");
        settings.put(StreamsConfig.producerPrefix("compression.type"), "lz4");
        KafkaStreams streams = new KafkaStreams(builder.build(), settings);
        streams.setUncaughtExceptionHandler(error -> {
            error.printStackTrace();
            System.exit(1);
            return null;
        });
        Runtime.getRuntime().addShutdownHook(new Thread(() -> streams.close(Duration.ofSeconds(5))));
        streams.start();
    }

    /** What the order adds to each group that it is in. */
    private static List<KeyValue<String, long[]>> parts(JsonNode order, Map<String, String> regions) {
        boolean sale = order.get("type").asText().equals("sale");
        String country = order.get("country").asText();
        Map<String, long[]> sums = new HashMap<>();
        for (JsonNode line : order.get("lines")) {
            long quantity = line.get("quantity").asLong();
            long gross = quantity * line.get("unit_amount").asLong();
            long net = gross - (gross * line.path("discount_percent").asLong(0) + 50) / 100;
            for (String name : new String[] {
                "product|" + line.get("product_id").asText(),
                "category|" + line.get("category").asText(),
                "country|" + country,
                "region|" + regions.get(country),
                "aov|"
            }) {
                long[] sum = sums.computeIfAbsent(name, any -> new long[COLUMNS]);
                sum[UNITS] += sale ? quantity : -quantity;
                sum[REVENUE] += sale ? net : -net;
                sum[SALES] += sale ? net : 0;
            }
        }
        List<KeyValue<String, long[]>> records = new ArrayList<>(sums.size());
        sums.forEach((name, sum) -> {
            sum[ORDERS] = sale ? 1 : 0;
            sum[EVENTS] = 1;
            records.add(KeyValue.pair(name, sum));
        });
        return records;
    }

    private static long[] add(long[] part, long[] sum) {
        long[] added = new long[COLUMNS];
        for (int column = 0; column < COLUMNS; column++) {
            added[column] = part[column] + sum[column];
        }
        return added;
    }

    private static void show(JedisPooled redis, String window, String name, long[] sum) {
        int bar = name.indexOf('|');
        String group = name.substring(0, bar);
        String member = name.substring(bar + 1);
        if (group.equals("aov")) {
            redis.hset(window + ":aov", Map.of(
                    "orders", Long.toString(sum[ORDERS]),
                    "sales_minor", Long.toString(sum[SALES]),
                    "returns", Long.toString(sum[EVENTS] - sum[ORDERS]),
                    "refunded_minor", Long.toString(sum[SALES] - sum[REVENUE]),
                    "revenue_minor", Long.toString(sum[REVENUE]),
                    "units", Long.toString(sum[UNITS])));
            return;
        }
        redis.zadd(window + ":" + group + ":units", sum[UNITS], member);
        redis.zadd(window + ":" + group + ":revenue", sum[REVENUE], member);
        if (!group.equals("product")) {
            redis.zadd(window + ":" + group + ":orders", sum[ORDERS], member);
        }
    }

    private static Serde<JsonNode> orders() {
        return Serdes.serdeFrom(
                (topic, order) -> order.toString().getBytes(),
                (topic, bytes) -> {
                    try {
                        return JSON.readTree(bytes);
                    } catch (IOException error) {
                        throw new UncheckedIOException(error);
                    }
                });
    }

    private static Serde<long[]> sums() {
        return Serdes.serdeFrom(
                (topic, sum) -> {
                    if (sum == null) {
                        return null;
                    }
                    ByteBuffer bytes = ByteBuffer.allocate(COLUMNS * Long.BYTES);
                    bytes.asLongBuffer().put(sum);
                    return bytes.array();
                },
                (topic, bytes) -> {
                    if (bytes == null) {
                        return null;
                    }
                    long[] sum = new long[COLUMNS];
                    ByteBuffer.wrap(bytes).asLongBuffer().get(sum);
                    return sum;
                });
    }
}
