"""The HTTP service: a program, run from the repository root as `python -m service`.

The process that is started is the `supervisor`, which keeps `worker` processes and serves nothing itself. In a worker a
request passes these modules in order: `connections` (bytes, and the time they may take), `middleware` and `admission`
(identity, keys, deadlines, room, size: by the headers alone), `endpoints` (HTTP only), `wire` (bytes to the schema, the
schema to a job of the library's types), `dispatch` and `scheduler` (which thread, and when), `engine` (knows no HTTP),
and back as the response of `calibrant.report`. Every failure on the way is a `ServiceError` that knows its code, and
`errors` writes it.
"""
