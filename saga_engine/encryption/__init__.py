"""
Payload encryption, behind the two methods of `payload.encryption.Codec`.

    configuration   the codec that the settings name
    keyring         keys by id: the first one encrypts, all of them decrypt
    aesgcm          AES-256-GCM, deterministic; needs the extra `saga-engine[crypto]`
"""
