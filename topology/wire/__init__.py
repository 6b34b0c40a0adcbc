"""Bytes: frames, codecs, sockets, keys, and the ledger of what crossed."""
