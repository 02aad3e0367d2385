#!/usr/bin/env bash
# Everything that a GPU is borrowed for, on a machine that has torch but not all that Headstart needs, and no internet.
#
#   benchmarks/gpu.sh wheels                 here, with internet: what is missing there, into wheels/ (git ignores it)
#   benchmarks/gpu.sh [options]              there: the steps of `python -m benchmarks gpu`, which has the options
#
# The machine: Linux x86-64, Python 3.12, torch 2.11, torchvision 0.26, numpy, scipy, scikit-learn, pandas, rich, pillow,
# jinja2, PyYAML, safetensors, pytest, hypothesis.
set -euo pipefail
cd "$(dirname "$0")/.."

MISSING="tyro docstring_parser typeguard pydantic pydantic_core annotated-types typing-inspection lightly"

if [ "${1:-}" = wheels ]; then
    pins=()
    for name in $MISSING; do pins+=("$(grep -i "^$name==" constraints.txt)"); done
    exec "${PYTHON:-python3}" -m pip download --quiet --no-deps --only-binary=:all: --python-version 3.12 --implementation cp \
        --platform manylinux_2_28_x86_64 --platform manylinux_2_17_x86_64 --platform manylinux2014_x86_64 \
        --dest wheels "${pins[@]}"
fi

export PYTHONPATH="$PWD/src${PYTHONPATH:+:$PYTHONPATH}" PYTHONUNBUFFERED=1
if compgen -G "wheels/*.whl" > /dev/null; then
    site="$(mktemp -d)"
    python3 -m pip install --quiet --no-index --no-deps --no-compile --no-cache-dir --target "$site" wheels/*.whl
    export PYTHONPATH="$site:$PYTHONPATH"
fi
exec python3 -m benchmarks gpu "$@"
