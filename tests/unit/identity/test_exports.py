import swarm.identity


def test_exported_names() -> None:
    assert swarm.identity.__all__ == [
        "OPEN_AUTHORITY",
        "Authority",
        "Keyring",
        "NodeKey",
        "TlsIdentity",
        "issue",
        "node_id_of_certificate",
        "public_key_of",
        "sign_detached",
        "tls_host_name",
        "verify_detached",
        "verify_signature",
    ]
    assert all(hasattr(swarm.identity, name) for name in swarm.identity.__all__)
