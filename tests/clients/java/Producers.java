import java.util.List;
import java.util.Properties;
import java.util.concurrent.ExecutionException;
import java.util.concurrent.Future;
import org.apache.kafka.clients.admin.Admin;
import org.apache.kafka.clients.admin.NewTopic;
import org.apache.kafka.clients.producer.KafkaProducer;
import org.apache.kafka.clients.producer.ProducerRecord;
import org.apache.kafka.clients.producer.RecordMetadata;
import org.apache.kafka.common.errors.RecordTooLargeException;
import org.apache.kafka.common.errors.TransactionalIdAuthorizationException;
import org.apache.kafka.common.serialization.StringSerializer;

/** What a producer with Kafka's default settings is told, and whether it goes on after that. */
public class Producers {
    public static void main(String[] args) throws Exception {
        Properties settings = new Properties();
        settings.put("bootstrap.servers", args[0]);
        settings.put("key.serializer", StringSerializer.class.getName());
        settings.put("value.serializer", StringSerializer.class.getName());
        settings.put("delivery.timeout.ms", "20000");
        settings.put("request.timeout.ms", "10000");
        settings.put("max.request.size", "104857600");
        settings.put("buffer.memory", "134217728");
        try (Admin admin = Admin.create(settings); KafkaProducer<String, String> producer = new KafkaProducer<>(settings)) {
            NewTopic topic = new NewTopic("again", 1, (short) -1);
            admin.createTopics(List.of(topic)).all().get();
            for (int round = 0; round < 3; round++) {
                must(producer.send(new ProducerRecord<>("again", "v")).get().offset() == 0, "the first record of a topic that was made again");
                admin.deleteTopics(List.of("again")).all().get();
                admin.createTopics(List.of(topic)).all().get();
            }
            for (int mib : new int[] {6, 17, 60}) {
                must(isTooLarge(producer, "x".repeat(mib << 20)), mib + " MiB are too large, and told so");
                must(producer.send(new ProducerRecord<>("again", "v")).get().offset() >= 0, "what follows is taken");
            }
            must(producer.send(new ProducerRecord<>("again", "k".repeat(100_000), "v")).get().offset() >= 0, "a key of 100,000 bytes");
        }
        for (String codec : new String[] {"gzip", "zstd", "lz4", "snappy"}) {
            Properties packed = new Properties();
            packed.putAll(settings);
            packed.put("compression.type", codec);
            packed.put("batch.size", "4000000");
            packed.put("linger.ms", "100");
            try (KafkaProducer<String, String> producer = new KafkaProducer<>(packed)) {
                Future<RecordMetadata> last = null;
                for (int i = 0; i < 50_000; i++) last = producer.send(new ProducerRecord<>("again", "x".repeat(128)));
                must(last.get().offset() > 0, codec + ": equal readings");
                must(producer.send(new ProducerRecord<>("again", "0".repeat(10 << 20))).get().offset() > 0, codec + ": 10 MiB of zeros");
                must(isTooLarge(producer, "0".repeat(40 << 20)), codec + ": 40 MiB of zeros are too large, and told so");
            }
        }
        Properties transactional = new Properties();
        transactional.putAll(settings);
        transactional.put("transactional.id", "t");
        try (KafkaProducer<String, String> producer = new KafkaProducer<>(transactional)) {
            producer.initTransactions();
            must(false, "there are no transactions yet");
        } catch (TransactionalIdAuthorizationException told) {
            System.out.println("  ok a transactional id is refused at once");
        }
        System.out.println("PASSED");
    }

    private static boolean isTooLarge(KafkaProducer<String, String> producer, String value) throws InterruptedException {
        try {
            producer.send(new ProducerRecord<>("again", value)).get();
            return false;
        } catch (ExecutionException refused) {
            return refused.getCause() instanceof RecordTooLargeException;
        }
    }

    private static void must(boolean holds, String what) {
        if (!holds) {
            System.out.println("FAILED " + what);
            System.exit(1);
        }
        System.out.println("  ok " + what);
    }
}
