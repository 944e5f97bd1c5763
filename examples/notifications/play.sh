#!/usr/bin/env bash
# One user assigns stories to another: `play.sh [HUB] [FROM] [TO]`. Over HTTP; with REDIS=host:port as domain events on the
# stream that `notifications.stream` names, which the rules of the hub turn into notifications.
set -euo pipefail
hub=${1:-http://127.0.0.1:8080} from=${2:-Ann} to=${3:-bob}
n=0
for story in 'Write the release notes' 'Mend the search box' 'Call the printer'; do
    n=$((n + 1))
    if [ -n "${REDIS:-}" ]; then
        redis-cli -h "${REDIS%:*}" -p "${REDIS#*:}" XADD "${STREAM:-events}" '*' type story.assigned \
            data "{\"assignee\": \"$to\", \"by\": \"$from\", \"story\": {\"id\": $n, \"title\": \"$story\"}}" >/dev/null
    else
        curl --fail --silent --show-error "$hub/api/v1/notifications" -H 'Content-Type: application/json' -o /dev/null \
            -d "{\"recipient_id\": \"$to\", \"type\": \"story_assigned\", \"title\": \"$from assigned you “$story”\", \"link\": \"/stories/$n\"}"
    fi
    echo "$from assigned \"$story\" to $to"
done
