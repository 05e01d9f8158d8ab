#!/bin/sh
# What compose says to SeaweedFS (`mini -dir=/data ...`, keys from the environment), in the words of versitygw. It keeps
# objects as files; conditional writes hold among concurrent writers, which is what the sink needs of a store.
set -eu
dir=/data
for option; do case $option in -dir=*) dir=${option#-dir=} ;; esac; done
export ROOT_ACCESS_KEY="${AWS_ACCESS_KEY_ID:-any}" ROOT_SECRET_KEY="${AWS_SECRET_ACCESS_KEY:-any}"
exec versitygw --quiet --port :8333 --region "${AWS_REGION:-us-east-1}" --health /healthz posix "$dir"
