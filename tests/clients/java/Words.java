import java.time.Duration;
import java.util.Arrays;
import java.util.List;
import java.util.Map;
import java.util.Properties;
import java.util.TreeMap;
import org.apache.kafka.clients.admin.Admin;
import org.apache.kafka.clients.admin.NewTopic;
import org.apache.kafka.clients.consumer.KafkaConsumer;
import org.apache.kafka.clients.producer.KafkaProducer;
import org.apache.kafka.clients.producer.ProducerRecord;
import org.apache.kafka.common.serialization.Serdes;
import org.apache.kafka.common.serialization.StringDeserializer;
import org.apache.kafka.common.serialization.StringSerializer;
import org.apache.kafka.streams.KafkaStreams;
import org.apache.kafka.streams.StreamsBuilder;
import org.apache.kafka.streams.errors.StreamsUncaughtExceptionHandler.StreamThreadExceptionResponse;

/** A word count as Kafka's own documentation has it, with a repartition and a changelog; ends when each of ten words was counted a hundred times. */
public class Words {
    private static final String[] WORDS = {"one", "two", "three", "four", "five", "six", "seven", "eight", "nine", "ten"};

    public static void main(String[] args) throws Exception {
        Properties common = new Properties();
        common.put("bootstrap.servers", args[0]);
        try (Admin admin = Admin.create(common)) {
            admin.createTopics(List.of(new NewTopic("words", 3, (short) -1), new NewTopic("counts", 3, (short) -1))).all().get();
        }
        Properties producer = with(common, "key.serializer", StringSerializer.class.getName(), "value.serializer", StringSerializer.class.getName());
        try (KafkaProducer<String, String> to = new KafkaProducer<>(producer)) {
            for (int i = 0; i < 100; i++) to.send(new ProducerRecord<>("words", "k" + i, String.join(" ", WORDS)));
        }
        Properties streams = with(common, "application.id", "count", "state.dir", args[1], "commit.interval.ms", "200",
            "default.key.serde", Serdes.StringSerde.class.getName(), "default.value.serde", Serdes.StringSerde.class.getName());
        StreamsBuilder builder = new StreamsBuilder();
        builder.<String, String>stream("words").flatMapValues(line -> Arrays.asList(line.split(" "))).groupBy((key, word) -> word).count()
            .toStream().mapValues(count -> "" + count).to("counts");
        KafkaStreams running = new KafkaStreams(builder.build(), streams);
        running.setUncaughtExceptionHandler(error -> {
            System.out.println(error);
            return StreamThreadExceptionResponse.SHUTDOWN_CLIENT;
        });
        running.start();
        Properties consumer = with(common, "group.id", "check", "auto.offset.reset", "earliest",
            "key.deserializer", StringDeserializer.class.getName(), "value.deserializer", StringDeserializer.class.getName());
        Map<String, String> counts = new TreeMap<>();
        long end = System.currentTimeMillis() + 90_000;
        try (KafkaConsumer<String, String> from = new KafkaConsumer<>(consumer)) {
            from.subscribe(List.of("counts"));
            while (System.currentTimeMillis() < end && !isDone(counts)) {
                for (var record : from.poll(Duration.ofMillis(200))) counts.put(record.key(), record.value());
            }
        }
        System.out.println(running.state() + " " + counts);
        running.close(Duration.ofSeconds(10));
        System.out.println(isDone(counts) ? "PASSED" : "FAILED");
        System.exit(isDone(counts) ? 0 : 1);
    }

    private static boolean isDone(Map<String, String> counts) {
        return counts.size() == WORDS.length && counts.values().stream().allMatch("100"::equals);
    }

    private static Properties with(Properties common, String... more) {
        Properties all = new Properties();
        all.putAll(common);
        for (int i = 0; i < more.length; i += 2) all.put(more[i], more[i + 1]);
        return all;
    }
}
