"""
What seals payloads, behind the two methods of `saga.sealing.Codec`.

    configuration   the codec that the settings name
    keyring         keys by id: the first seals, all of them open
    aesgcm          AES-256-GCM, deterministic; needs the extra `saga-engine[crypto]`
"""
