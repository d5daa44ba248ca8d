#!/bin/sh
# Install RabbitMQ, of which the tests run private servers.
set -eu
ls /usr/lib/rabbitmq/bin/rabbitmq-server /usr/lib/rabbitmq/lib/*/sbin/rabbitmq-server >/dev/null 2>&1 ||
    sh "$(dirname "$0")/debian.sh" rabbitmq-server
