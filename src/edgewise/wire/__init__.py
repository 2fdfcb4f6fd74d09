"""What travels between a device and the control plane, as MessagePack bodies over HTTP/1.1.

Rules: frozen structs, lenient about unknown fields, every message carries `wire` (the version) where it begins a conversation. A field is
never renamed or given another meaning; new ones have defaults. Start reading at `report.py` (uplink) and `desired.py` (downlink).
"""
