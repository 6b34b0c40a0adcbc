"""Numbers as people read them."""


def size(n_bytes: int | float) -> str:
    """Bytes in words.

    Example:
        >>> [size(0), size(999.4), size(12_340), size(2e9)]
        ['0 B', '999 B', '12.3 kB', '2 GB']
    """
    for unit in ("B", "kB", "MB"):
        if n_bytes < 999.5:
            return f"{n_bytes:.3g} {unit}"
        n_bytes /= 1000
    return f"{n_bytes:.3g} GB"
