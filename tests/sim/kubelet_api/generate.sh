#!/bin/sh
# Generate the Python of the messages in this folder. Run it from the top folder of the project.
set -eu
exec .venv/bin/python -m grpc_tools.protoc -I. --python_out=. --pyi_out=. tests/sim/kubelet_api/*.proto
