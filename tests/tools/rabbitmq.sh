#!/bin/sh
# RabbitMQ's programs, of which the tests run servers of their own.
set -eu
ls /usr/lib/rabbitmq/bin/rabbitmq-server /usr/lib/rabbitmq/lib/*/sbin/rabbitmq-server >/dev/null 2>&1 ||
    sh "$(dirname "$0")/debian.sh" rabbitmq-server
