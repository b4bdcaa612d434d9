#!/bin/sh
# Builds the operator package (TBE implementation) into a folder such as vendors/tessera. Usage: build.sh [FOLDER]
# The folder keeps its name: CANN looks for NAME_impl in a folder NAME.
# Needs CANN 6.0 or later with its set_env.sh sourced, and a C++ compiler; no NPU.
set -e
: "${ASCEND_TOOLKIT_HOME:?source set_env.sh of CANN first}"
here=$(cd "$(dirname "$0")" && pwd)
target=${1:-$here/build/vendors/tessera}

# CANN's libraries keep the string type of GCC 4.
build() {
    output=$1
    shift
    mkdir -p "$(dirname "$output")"
    ${CXX:-c++} -std=c++11 -O2 -Wall -fPIC -shared -D_GLIBCXX_USE_CXX11_ABI=0 \
        -I"$ASCEND_TOOLKIT_HOME/include" "$@" -o "$output" -L"$ASCEND_TOOLKIT_HOME/lib64" -lgraph -lregister
}

build "$target/op_proto/libcust_op_proto.so" "$here/op_proto/conv_bias_relu.cc"
build "$target/framework/onnx/libcust_onnx_parsers.so" "$here/onnx_plugin/conv_bias_relu_plugin.cc"

kernels=$target/op_impl/ai_core/tbe
implementation=$kernels/$(basename "$target")_impl
mkdir -p "$implementation"
cp "$here/tbe/__init__.py" "$here/tbe/conv_bias_relu.py" "$here/tbe/geometry.py" "$implementation/"
for family in ascend310 ascend310b ascend310p ascend910 ascend910b ascend910_93; do
    mkdir -p "$kernels/config/$family"
    cp "$here/op_info.json" "$kernels/config/$family/aic-$family-ops-info.json"
done
echo "$target"
