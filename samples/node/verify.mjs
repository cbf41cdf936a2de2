// Whether a webhook is the order service's: node verify.mjs SECRET WEBHOOK_ID WEBHOOK_TIMESTAMP WEBHOOK_SIGNATURE <body
// The three come from the headers webhook-id, webhook-timestamp and webhook-signature. Exit code 0: it is; 1: it is not.
import { createHmac, timingSafeEqual } from "node:crypto";
import { readFileSync } from "node:fs";

export function verify(secret, id, timestamp, signatures, body) {
  // An old one may be a replay.
  if (!/^\d+$/.test(timestamp) || Math.abs(Date.now() / 1000 - Number(timestamp)) > 300) return false;
  const key = Buffer.from(secret.replace(/^whsec_/, ""), "base64");
  // The bytes as they came, before anybody parses them.
  const expected = createHmac("sha256", key).update(`${id}.${timestamp}.`).update(body).digest();
  // Two while a secret is exchanged.
  return signatures.split(" ").some((one) => {
    const given = one.startsWith("v1,") ? Buffer.from(one.slice(3), "base64") : Buffer.alloc(0);
    return given.length === expected.length && timingSafeEqual(given, expected);
  });
}

const [secret, id, timestamp, signatures] = process.argv.slice(2);
const valid = verify(secret, id, timestamp, signatures, readFileSync(0));
console.log(valid ? "valid" : "not valid");
process.exit(valid ? 0 : 1);
