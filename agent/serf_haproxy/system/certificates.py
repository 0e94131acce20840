"""Files of certificates: whether HAProxy can load them."""


def find_fault(path: str) -> str:
    """Return why a file has no certificates of authorities that HAProxy could load, "" where it has."""
    import ssl

    try:
        ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT).load_verify_locations(path)
    except ssl.SSLError:
        return "must be a PEM file with certificates"
    except OSError as error:
        return f"cannot be read: {error.strerror or error}"
    return ""
