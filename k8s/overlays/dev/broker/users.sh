#!/bin/sh
# Before the broker starts: its users by the Secrets, with their passwords' hashes, beside the policies and permissions.
#
# users.sh SECRETS DEFINITIONS FOLDER: SECRETS/<tag>/<user>/ has `username` and `password`; the tag `none` is no tag, and an
# administrator may do everything.
set -eu
secrets=$1 definitions=$2 target=$3
users= rights=
for folder in "$secrets"/*/*/; do
    name=$(cat "$folder/username")
    hash=$(rabbitmqctl --silent hash_password "$(cat "$folder/password")")
    tag=$(basename "$(dirname "$folder")")
    [ "$tag" != none ] || tag=
    [ "$tag" != administrator ] || rights="{\"user\":\"$name\",\"vhost\":\"/\",\"configure\":\".*\",\"write\":\".*\",\"read\":\".*\"}"
    users="$users${users:+,}{\"name\":\"$name\",\"password_hash\":\"$hash\",\"hashing_algorithm\":\"rabbit_password_hashing_sha256\",\"tags\":\"$tag\"}"
done
umask 077
printf '{"vhosts":[{"name":"/"}],"users":[%s],"permissions":[%s]}\n' "$users" "$rights" >"$target/10-users.json"
cp "$definitions" "$target/20-jm-mq.json"
