import java.nio.charset.StandardCharsets;
import java.security.MessageDigest;
import java.util.Base64;
import javax.crypto.Mac;
import javax.crypto.spec.SecretKeySpec;

/**
 * Whether a webhook is the order service's: java Verify.java SECRET WEBHOOK_ID WEBHOOK_TIMESTAMP WEBHOOK_SIGNATURE &lt;body
 * The three come from the headers webhook-id, webhook-timestamp and webhook-signature. Exit code 0: it is; 1: it is not.
 */
public class Verify {
    static boolean verify(String secret, String id, String timestamp, String signatures, byte[] body) throws Exception {
        // An old one may be a replay.
        if (!timestamp.matches("\\d{1,12}") || Math.abs(System.currentTimeMillis() / 1000 - Long.parseLong(timestamp)) > 300) {
            return false;
        }
        var mac = Mac.getInstance("HmacSHA256");
        mac.init(new SecretKeySpec(Base64.getDecoder().decode(secret.replaceFirst("^whsec_", "")), "HmacSHA256"));
        mac.update((id + "." + timestamp + ".").getBytes(StandardCharsets.UTF_8));
        // The bytes as they came, before anybody parses them.
        var expected = ("v1," + Base64.getEncoder().encodeToString(mac.doFinal(body))).getBytes(StandardCharsets.UTF_8);
        // Two while a secret is exchanged.
        for (var one : signatures.split(" ")) {
            if (MessageDigest.isEqual(one.getBytes(StandardCharsets.UTF_8), expected)) {
                return true;
            }
        }
        return false;
    }

    public static void main(String[] args) throws Exception {
        var valid = verify(args[0], args[1], args[2], args[3], System.in.readAllBytes());
        System.out.println(valid ? "valid" : "not valid");
        System.exit(valid ? 0 : 1);
    }
}
