"""The runner of a bundle: Python 3.6, numpy and onnxruntime from 1.10 on; nothing else of jaxkd."""
