#!/bin/sh
# The README's first webhook as a script: an endpoint, a receiver that verifies, an event, and what became of it.
#
#   RINGBEARER_URL=http://127.0.0.1:8200 RINGBEARER_KEY=rb_… examples/first_webhook.sh
#
# Without the two variables it takes the service that `make up` runs here. The service must be allowed to reach
# this machine: RINGBEARER_ALLOW_NETWORKS=127.0.0.0/8. BIN is where ringbearer is installed, PORT where to receive.
set -eu
cd "$(dirname "$0")/.."
BIN=${BIN:-.venv/bin}
PORT=${PORT:-9000}
received=$(mktemp)
receiver=
trap '[ -z "$receiver" ] || kill "$receiver" 2>/dev/null || true; rm -f "$received"' EXIT

# Waits until a line with these words was received, for at most 20 seconds.
await() {
    tries=0
    until grep -q "$1" "$received"; do
        tries=$((tries + 1))
        if [ "$tries" -gt 200 ]; then
            echo "no line with '$1' came:"
            cat "$received"
            exit 1
        fi
        sleep 0.1
    done
}

"$BIN/ringbearer" suppliers put demo --name 'My first supplier' >/dev/null
secret=$("$BIN/ringbearer" endpoints create demo "http://127.0.0.1:$PORT/" --json |
    "$BIN/python" -c 'import json, sys; print(json.load(sys.stdin)["secret"])')

"$BIN/ringbearer" receive --port "$PORT" --secret "$secret" >"$received" 2>&1 &
receiver=$!
await 'receiving on'

"$BIN/ringbearer" publish --supplier demo --type booking.confirmed --data '{"booking": 42}'
await '  verified  '
grep '  verified  ' "$received"
"$BIN/ringbearer" deliveries list --supplier demo --limit 1
