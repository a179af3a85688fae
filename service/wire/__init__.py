"""The wire formats: bytes to jobs, results to bytes. Knows neither routes nor the engine's threads.

`schema` says what a request and an answer hold, whatever the format; `json`, `msgpack`, `arrow` and `oip` (the Open
Inference Protocol) turn bytes into it and back; `jobs` turns it into the library's types and `documents` turns results
into it. Nothing is decoded before `amounts` has counted what it holds, unless it is small; `cutting` finds the panels
of a batch; `quick` reads what is sound and leaves the rest to pydantic, which `validation` has say what is wrong.

What is missing: JSON has no NaN, so there and in MessagePack, which has the same schema, null is a missing vol and NaN
is refused. The tensors of the Open Inference Protocol have no null, so there NaN is a missing vol, and NaN in all of
them is padding. Arrow has both, and libraries turn one into the other on the way, so there both mean missing.
"""
