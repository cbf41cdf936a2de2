import com.rabbitmq.client.ConnectionFactory;
import com.rabbitmq.client.DeliverCallback;
import java.nio.charset.StandardCharsets;
import java.util.HashSet;
import java.util.Map;
import java.util.concurrent.CountDownLatch;
import java.util.regex.Pattern;

/** Prints each event once, in the order of its order's stream: java -cp amqp-client.jar:slf4j-api.jar Consume.java QUEUE [HOW_MANY] */
public class Consume {
    public static void main(String[] args) throws Exception {
        var queue = args.length > 0 ? args[0] : "my-orders";
        var left = new CountDownLatch(args.length > 1 ? Integer.parseInt(args[1]) : Integer.MAX_VALUE);
        var factory = new ConnectionFactory();
        factory.setUri(System.getenv().getOrDefault("AMQP_URI", "amqp://guest:guest@localhost:5672/"));
        try (var connection = factory.newConnection("samples"); var channel = connection.createChannel()) {
            channel.queueDeclare(queue, true, false, false, Map.of("x-queue-type", "quorum"));
            channel.queueBind(queue, "order-events", "order.*");
            channel.basicQos(100);
            // In a real consumer this is a table with a unique key, written in the transaction of whatever the event changes.
            var seen = new HashSet<String>();
            DeliverCallback each = (tag, delivery) -> {
                // Use your JSON library here; the members are those of /schemas/events/*.json.
                var event = new String(delivery.getBody(), StandardCharsets.UTF_8);
                var isNew = seen.add(delivery.getProperties().getMessageId());
                if (isNew) {
                    System.out.println(member(event, "type") + " " + member(event, "subject") + " " + member(event, "sequence"));
                }
                // Only now: what was not acknowledged comes again.
                channel.basicAck(delivery.getEnvelope().getDeliveryTag(), false);
                if (isNew) {
                    // Last: the channel closes with the last one.
                    left.countDown();
                }
            };
            channel.basicConsume(queue, false, each, tag -> System.err.println("the queue was deleted"));
            System.out.println("waiting for events in " + queue);
            left.await();
        }
    }

    private static String member(String json, String name) {
        var found = Pattern.compile("\"" + name + "\":\"?([^\",}]*)").matcher(json);
        return found.find() ? found.group(1) : "-";
    }
}
