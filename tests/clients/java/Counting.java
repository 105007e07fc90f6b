import java.util.List;
import java.util.Map;
import org.apache.kafka.common.config.ConfigDef;
import org.apache.kafka.connect.connector.Task;
import org.apache.kafka.connect.data.Schema;
import org.apache.kafka.connect.source.SourceConnector;
import org.apache.kafka.connect.source.SourceRecord;
import org.apache.kafka.connect.source.SourceTask;

/** A connector that writes the numbers from 0 on, and goes on where its offset says. */
public class Counting extends SourceConnector {
    private Map<String, String> settings;

    @Override public String version() { return "1"; }
    @Override public void start(Map<String, String> settings) { this.settings = settings; }
    @Override public void stop() {}
    @Override public Class<? extends Task> taskClass() { return Counter.class; }
    @Override public List<Map<String, String>> taskConfigs(int most) { return List.of(settings); }
    @Override public ConfigDef config() {
        return new ConfigDef().define("topic", ConfigDef.Type.STRING, ConfigDef.Importance.HIGH, "where to");
    }

    /** Its task. */
    public static class Counter extends SourceTask {
        private static final Map<String, String> SOURCE = Map.of("source", "numbers");
        private String topic;
        private long next;

        @Override public String version() { return "1"; }
        @Override public void start(Map<String, String> settings) {
            topic = settings.get("topic");
            Map<String, Object> offset = context.offsetStorageReader().offset(SOURCE);
            next = offset == null ? 0 : (Long) offset.get("next");
        }
        @Override public List<SourceRecord> poll() throws InterruptedException {
            Thread.sleep(20);
            long number = next++;
            return List.of(new SourceRecord(SOURCE, Map.of("next", next), topic, Schema.STRING_SCHEMA, "k",
                Schema.INT64_SCHEMA, number));
        }
        @Override public void stop() {}
    }
}
