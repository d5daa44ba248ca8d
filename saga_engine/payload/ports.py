"""
What the core gets from outside for its payloads: a codec, a time limit and the limits of a body.

The core only calls them. What is behind them (keys, an alarm signal, settings) is I/O and is made
by the process that decides.
"""

from dataclasses import dataclass

from saga_engine.payload.encryption import NO_ENCRYPTION, AssociatedData, PayloadEncryption
from saga_engine.payload.guard import NO_TIME_LIMIT, CallTimeLimit
from saga_engine.payload.limits import DEFAULT_LIMITS, BodyLimits
from saga_engine.payload.payload import limit_problem, too_large_error
from saga_engine.vocabulary import Json


@dataclass(frozen=True, slots=True)
class PayloadPorts:
    """
    The ports of a decision; the defaults encrypt nothing and limit no call.

    Args:
        encryption: encrypts and decrypts payloads.
        time_limit: interrupts calls into the author's code that take too long.
        limits: what a body may hold as it is sent.
    """

    encryption: PayloadEncryption = NO_ENCRYPTION
    time_limit: CallTimeLimit = NO_TIME_LIMIT
    limits: BodyLimits = DEFAULT_LIMITS

    @property
    def plain_limits(self) -> BodyLimits | None:
        """The limits of a payload before encryption; None when its encrypted form is checked."""
        return self.limits if self.encryption.codec is None else None

    def encrypt_payload(self, payload: Json, associated_data: AssociatedData) -> Json:
        """
        Encrypt a payload and check the size of the result.

        Without a codec nothing is left to do: the payload was checked against `plain_limits` when
        it was written.

        Raises:
            EncryptionError: the codec cannot encrypt it.
            PayloadError: it is too large.
        """
        if self.encryption.codec is None:
            return payload
        encrypted = self.encryption.encrypt(payload, associated_data)
        problem = limit_problem(encrypted, self.limits)
        if problem:
            raise too_large_error(problem)
        return encrypted


NO_PORTS = PayloadPorts()
"""No codec, no time limit, the default limits of a body."""
