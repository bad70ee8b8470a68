"""Bytes that last, and what every room needs: files that are there whole or not at all, keys, signed archives, checks.

Nothing here knows what a table, a budget or a bundle is.

    files           whole-or-nothing files         canonical_json  one spelling of a JSON value
    sqlite          one SQLite file, its shape     signed_zip      a signed container of files
    keys            Ed25519 key files              exact           products of matrices, free of rounding
    checks          arguments                      compute         threads and devices of torch
    report_style    how every report looks
"""

__all__: list[str] = []
