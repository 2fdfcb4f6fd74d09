"""What runs a model on this device: ONNX Runtime, OpenVINO or LiteRT, each behind the same small contract.

A runtime is imported only when a model needs it. One that is added must pass the contract suite (`tests/contract/test_runtimes.py`). Start
reading at `contract.py`; `choose.py` says which file is whose.
"""
