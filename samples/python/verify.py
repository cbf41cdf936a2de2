"""Whether a webhook is the order service's: python3 verify.py SECRET WEBHOOK_ID WEBHOOK_TIMESTAMP WEBHOOK_SIGNATURE <body

The three come from the headers webhook-id, webhook-timestamp and webhook-signature. Exit code 0: it is; 1: it is not.
"""
import base64
import hashlib
import hmac
import sys
import time


def verify(secret: str, id: str, timestamp: str, signatures: str, body: bytes) -> bool:
    # An old one may be a replay.
    if not timestamp.isdigit() or abs(time.time() - int(timestamp)) > 300:
        return False
    key = base64.b64decode(secret.removeprefix("whsec_"))
    # The bytes as they came, before anybody parses them.
    expected = "v1," + base64.b64encode(hmac.new(key, f"{id}.{timestamp}.".encode() + body, hashlib.sha256).digest()).decode()
    # Two while a secret is exchanged.
    return any(hmac.compare_digest(one.encode(), expected.encode()) for one in signatures.split(" "))


if __name__ == "__main__":
    valid = verify(*sys.argv[1:5], sys.stdin.buffer.read())
    print("valid" if valid else "not valid")
    sys.exit(0 if valid else 1)
