"""Where every test finds its servers."""

pytest_plugins = ["tests.servers"]
