#!/bin/sh
# A short-lived kubeconfig by HTTP: bind, fetch and unbind by the Open Service Broker API.
#
#   sh bind.sh bind | jq --raw-output .credentials.kubeconfig > my.kubeconfig
#   kubectl --kubeconfig my.kubeconfig get namespaces
#   sh bind.sh unbind
#
# Further options are curl's, such as `--user NAME`, which asks for the password, or `--cacert FILE`.
set -eu
broker=${BROKER:-http://127.0.0.1:8080}
instance=${INSTANCE:-my-instance}
# The platform's choice; the same request again gives the same binding.
binding=${BINDING:-my-binding}
action=${1:?bind, fetch or unbind}
shift

url="$broker/v2/service_instances/$instance/service_bindings/$binding"
ask() {
    curl --silent --show-error --fail-with-body --header 'X-Broker-API-Version: 2.17' "$@"
}
case $action in
bind)
    # 201, or 200 where it exists already. expiration_seconds: 600 to 7200.
    ask "$@" --request PUT --header 'Content-Type: application/json' \
        --data '{"service_id": "kyma", "plan_id": "aws", "parameters": {"expiration_seconds": 900}}' "$url"
    ;;
fetch)
    ask "$@" "$url"
    ;;
unbind)
    # 200 when the managed cluster refuses the token; 410 when there is no such binding.
    ask "$@" --request DELETE "$url?service_id=kyma&plan_id=aws"
    ;;
*)
    echo "$action is none of bind, fetch and unbind" >&2
    exit 2
    ;;
esac
