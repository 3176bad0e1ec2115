"""Scores over HTTP: `bitfold serve`.

limits        what a server takes on
messages      a request, an answer, a refusal
bodies        JSON to rows
tables        Arrow and Parquet to tables, and scores back to Arrow
arrow_frames  whether an Arrow stream is compressed
models        the model that answers, and how another takes its place
sources       where models come from
deltas        the next run, made of a small file that a client sends
swapping      requests that change the model
batching      requests that wait are scored together
measuring     what `/metrics` shows
openapi       the description of the server
page          the page at `/`
app           requests to answers
requests      one request, as the library hands it over
connections   as many of them as may be open, their heads within limits
watching      a model that changes on the disk
logs          structured logs
server        the socket, signals, the end
"""
