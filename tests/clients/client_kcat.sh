#!/usr/bin/env bash
# kcat, as people use it at a prompt.
set -euo pipefail
bootstrap=$1
tag="kcat-$(date +%s%N)"
ok() { echo "  ok kcat: $1"; }
fail() { echo "FAILED $1" >&2; exit 1; }
same() { [ "$1" = "$2" ] || fail "$3: '$1' is not '$2'"; }

# The topic is made when it is first asked for.
seq 1 5000 | kcat -b "$bootstrap" -t "$tag" -P
same "$(kcat -b "$bootstrap" -L -t "$tag" | grep -c "topic \"$tag\" with 1 partitions")" 1 "listed"
ok create

for codec in none gzip snappy lz4 zstd; do
    for acks in 0 1 all; do
        seq 1 5000 | kcat -b "$bootstrap" -t "$tag-$codec-$acks" -P -z "$codec" -X "acks=$acks"
        same "$(kcat -b "$bootstrap" -t "$tag-$codec-$acks" -C -e -q -c 5000 | md5sum)" "$(seq 1 5000 | md5sum)" "$codec, acks $acks"
    done
done
ok compression_and_acks

printf 'k1:v1\nk2:\n' | kcat -b "$bootstrap" -t "$tag-h" -P -K: -Z -H a=1 -H a=2
same "$(kcat -b "$bootstrap" -t "$tag-h" -C -e -q -Z -f '%k=%s %h\n')" $'k1=v1 a=1,a=2\nk2=NULL a=1,a=2' "headers and nulls"
ok headers_and_nulls

head -c 900000 /dev/zero | tr '\0' x >"/tmp/$tag"
kcat -b "$bootstrap" -t "$tag-large" -P "/tmp/$tag"
same "$(kcat -b "$bootstrap" -t "$tag-large" -C -e -q -f '%S\n')" 900000 "large"
rm "/tmp/$tag"
ok large_messages

same "$(kcat -b "$bootstrap" -t "$tag" -C -e -q -o 4990 | head -1)" 4991 "from an offset"
same "$(kcat -b "$bootstrap" -t "$tag" -C -e -q -o -3 | tr '\n' ' ')" "4998 4999 5000 " "from the end"
same "$(kcat -b "$bootstrap" -Q -t "$tag:0:1" | tr -d ' ')" "$tag[0]offset0" "by time"
ok seek_by_time

same "$(timeout 60 kcat -b "$bootstrap" -G "$tag-g" -X auto.offset.reset=earliest -e -q -c 5000 "$tag" 2>/dev/null | md5sum)" \
    "$(seq 1 5000 | md5sum)" "as a group"
ok commit_and_resume
echo "PASSED kcat $(kcat -V | grep -o 'librdkafka [0-9.]*' | head -1)"
