"""The environment variables that Kubernetes and Docker add to a process."""

SERVICES = {
    "SAGA_ENGINE": (9464, "HTTP"),
    "SAGA_ENGINE_HTTP": (9464, "METRICS"),
    "SAGA_ENGINE_WORKER": (9464, "HTTP"),
    "SAGA_ENGINE_DATABASE": (5432, "POSTGRES"),
    "SAGA_ENGINE_BROKER": (5672, "AMQP"),
    "KUBERNETES": (443, "HTTPS"),
}
"""Services of the namespace, each with its port and that port's name."""


def kubernetes_variables() -> dict[str, str]:
    """The variables that the kubelet adds for each Service (`pkg/kubelet/envvars`)."""
    added: dict[str, str] = {}
    for number, (service, (port, name)) in enumerate(SERVICES.items(), 1):
        address = f"10.96.0.{number}"
        added |= {
            f"{service}_SERVICE_HOST": address,
            f"{service}_SERVICE_PORT": f"{port}",
            f"{service}_SERVICE_PORT_{name}": f"{port}",
            f"{service}_PORT": f"tcp://{address}:{port}",
        }
        for protocol in ("tcp", "udp", "sctp"):
            one = f"{service}_PORT_{port}_{protocol.upper()}"
            added |= {
                one: f"{protocol}://{address}:{port}",
                f"{one}_PROTO": protocol,
                f"{one}_PORT": f"{port}",
                f"{one}_ADDR": address,
            }
    return added


def docker_link_variables() -> dict[str, str]:
    """The variables that a legacy link with the alias `saga-engine-http` adds."""
    return {
        "SAGA_ENGINE_HTTP_NAME": "/worker/saga-engine-http",
        "SAGA_ENGINE_HTTP_PORT": "tcp://172.17.0.5:9464",
        "SAGA_ENGINE_HTTP_PORT_9464_TCP": "tcp://172.17.0.5:9464",
        "SAGA_ENGINE_HTTP_PORT_9464_TCP_ADDR": "172.17.0.5",
        "SAGA_ENGINE_HTTP_ENV_LANG": "C.UTF-8",
    }
