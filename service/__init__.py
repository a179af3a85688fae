"""The HTTP service: a program, run from the repository root as `python -m service`.

A request passes these modules in order: `middleware` (identity, size, time), `app` (HTTP only), `decode` (bytes to the
schema, the schema to a job of the library's types), `engine` (knows no HTTP), and back as the response of
`calibrant.report`. Every failure on the way is a `ServiceError` that knows its code, and `errors` writes it.
"""
