#!/bin/bash
# Sets CANN's variables, then becomes the service, which so gets the container's signals itself.
driver=/usr/local/Ascend/driver/lib64
export LD_LIBRARY_PATH="$driver:$driver/common:$driver/driver${LD_LIBRARY_PATH:+:$LD_LIBRARY_PATH}"
for folder in "${ASCEND_HOME:-/usr/local/Ascend}"/{ascend-toolkit,cann,nnrt}; do
    if [ -f "$folder/set_env.sh" ]; then
        # shellcheck disable=SC1091  # part of CANN
        . "$folder/set_env.sh"
        break
    fi
done
exec tessera "$@"
