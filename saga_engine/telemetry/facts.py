"""
What happened, told once: frozen records handed to plain callables.

The engine and the participant kit tell facts and never log or count by themselves; `logs` and
`metrics` are two observers of them, tests are a third. A fact carries ids and sizes, never a
payload, a password or a key. Every fact has a line in docs/telemetry.md.
"""
