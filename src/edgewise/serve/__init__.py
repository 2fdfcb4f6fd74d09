"""The model server on the device: one signed model, answered over the Open Inference Protocol (V2, JSON) on the device's loopback.

Rules: one process serves one model revision; it takes no connection before it is told to, and drops none when it is told to stop; whatever
a client sends costs bounded memory and ends in an answer. No asyncio, no web framework: a selector loop and one inference thread, because
memory is what a device has least of. Start reading at `server.py` (the life of the process), then `conversation.py` (HTTP, no I/O) and
`inference.py` (what a request means).
"""
