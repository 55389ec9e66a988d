"""Define faults of storage: local files, the files of torch and safetensors, and fsspec."""
