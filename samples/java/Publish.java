import com.rabbitmq.client.AMQP;
import com.rabbitmq.client.ConnectionFactory;
import java.nio.charset.StandardCharsets;
import java.util.Date;
import java.util.concurrent.atomic.AtomicBoolean;

/** Publishes an order and waits until the broker has it: java -cp amqp-client.jar:slf4j-api.jar Publish.java ORDER_ID */
public class Publish {
    public static void main(String[] args) throws Exception {
        var orderId = args.length > 0 ? args[0] : "A-1001";
        var factory = new ConnectionFactory();
        factory.setUri(System.getenv().getOrDefault("AMQP_URI", "amqp://guest:guest@localhost:5672/"));
        try (var connection = factory.newConnection("samples"); var channel = connection.createChannel()) {
            channel.confirmSelect();
            // "mandatory": a queue that is not there is told, instead of the order being lost.
            var returned = new AtomicBoolean();
            channel.addReturnListener(message -> returned.set(true));
            var order = """
                {"orderId":"%s","customerId":"C-7","currency":"EUR","lines":[{"sku":"KB-01","quantity":2,"unitPrice":49.90}]}""".formatted(orderId);
            // The key is yours: after a crash or a time-out send the same message again, with the same key, and it counts once.
            var properties = new AMQP.BasicProperties.Builder()
                .type("order.place").messageId("place-" + orderId).contentType("application/json").deliveryMode(2).timestamp(new Date()).build();
            channel.basicPublish("", "orders", true, properties, order.getBytes(StandardCharsets.UTF_8));
            channel.waitForConfirmsOrDie(10_000);
            if (returned.get()) {
                System.err.println(orderId + " was returned: there is no queue \"orders\"");
                System.exit(1);
            }
            System.out.println("confirmed " + orderId);
        }
    }
}
