"""Runs notebooks headless: order, what is up to date, here or on other machines. Uses all that lies below."""

import sys

# nbformat imports jsonschema, and that compiles a grammar of international addresses, which takes longer than to import
# torch, in every process that runs a notebook. No notebook has such addresses.
if "jsonschema" not in sys.modules and "rfc3987_syntax" not in sys.modules:
    sys.modules["rfc3987_syntax"] = None
    import jsonschema  # noqa: F401

    del sys.modules["rfc3987_syntax"]
