"""Settings of who may send which messages, and of the encryption of payloads."""

import json
from collections.abc import Mapping

from pydantic import BaseModel, Field, SecretStr, field_validator

AuthorizedUsers = Mapping[str, tuple[str, ...]]


class SecuritySettings(BaseModel):
    """Authorization of senders, and payload encryption; docs/security.md and encryption.md."""

    authorized_reply_users: AuthorizedUsers = Field(
        {},
        description="Which RabbitMQ users may reply to which commands, as JSON:"
        ' {"payment.*": ["payments"]}. * matches any characters. The first pattern that matches'
        " decides; a command that no pattern matches is not checked",
    )
    authorized_request_users: AuthorizedUsers = Field(
        {},
        description="Which RabbitMQ users may send which requests, with the same rules:"
        ' {"start place-order": ["shop"], "cancel *": ["support"]}',
    )
    payload_codec: str | None = Field(
        None,
        description="Codec that encrypts payloads in RabbitMQ and PostgreSQL: aes-gcm, or"
        " MODULE:NAME of a codec. Set the same for workers, participants, clients and the command"
        " line",
    )
    payload_encryption_keys: SecretStr | None = Field(
        None,
        description="Keys of aes-gcm, as id=base64,... with 32 bytes each, or @FILE. The first key"
        " encrypts, every key decrypts. `none` in first place encrypts nothing",
    )

    @field_validator("authorized_reply_users", "authorized_request_users", mode="before")
    @classmethod
    def _parse_authorized_users(cls, rules: object) -> object:
        if not isinstance(rules, str):
            return rules
        try:
            parsed = json.loads(rules)
        except ValueError:
            parsed = None
        if not isinstance(parsed, dict) or not all(map(_is_user_list, parsed.values())):
            raise ValueError('must be JSON of the form {"payment.*": ["payments"]}')
        return parsed


def _is_user_list(users: object) -> bool:
    return isinstance(users, list) and all(isinstance(user, str) and user for user in users)
