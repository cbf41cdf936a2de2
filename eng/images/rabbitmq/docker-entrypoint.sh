#!/bin/sh
set -eu
# Erlang reserves memory for every descriptor it may open; "unlimited" would cost gigabytes.
if [ "$(ulimit -n)" = unlimited ] || [ "$(ulimit -n)" -gt 65536 ]; then ulimit -n 65536; fi
if [ -n "${RABBITMQ_ERLANG_COOKIE:-}" ]; then
    (umask 077; printf '%s' "$RABBITMQ_ERLANG_COOKIE" >/var/lib/rabbitmq/.erlang.cookie)
    chmod 400 /var/lib/rabbitmq/.erlang.cookie
    unset RABBITMQ_ERLANG_COOKIE
fi
if [ "$(id -u)" = 0 ] && [ "${1:-}" = rabbitmq-server ]; then
    chown -R rabbitmq:rabbitmq /var/lib/rabbitmq
    exec setpriv --reuid=rabbitmq --regid=rabbitmq --init-groups "$@"
fi
exec "$@"
