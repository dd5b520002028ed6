#!/usr/bin/env bash
# The demo: what Weir does, on real traffic, with the commands that show it.
# It stops at the first step that fails, says which, and exits with 1.
set -euo pipefail
cd "$(dirname "$0")/.."
export PATH="${WEIR_BIN:-$PWD/bin}:$PATH"
step="start"
finish() { local code=$?; [ $code = 0 ] || { echo; echo "FAILED at step: $step"; exit 1; }; }
trap finish EXIT

step() { step=$1; printf '\n\033[1m== %s\033[0m\n' "$1"; }
show() { printf '$ %s\n' "$*"; "$@"; }
on() { show weir-lab exec --lab demo "$@"; }
quiet() { weir-lab exec --lab demo "$@"; }
expect() { grep -q -- "$2" <<<"$1" || { echo "expected: $2"; echo "got: $1"; exit 1; }; }

if weir-lab list | grep -qw demo; then
  step "take away the demo of an earlier run"
  show weir-lab down demo
fi

step "bring up a data center: a controller, five nodes with an agent that join it, one outsider"
show weir-lab up -f examples/demo/lab.yaml --wait 30s

step "start small HTTP servers on three private nodes, and one at the edge"
for n in 1 2 3; do on "a$n" --detach web -- weir-lab serve http "10.80.0.1$n:8080" --name "a$n"; done
on p1 --detach edge -- weir-lab serve http 203.0.113.31:80 --name p1
for _ in $(seq 50); do
  up=$(quiet a1 -- weir vip show web.shop -o json | grep -c '"state": "up"' || true)
  [ "$up" = 3 ] && break
  sleep 0.1
done
on a1 -- weir vip show web.shop

step "a virtual IP by name, from every node, spread over the backends"
for node in a1 a2 a3 p1 c1; do
  on "$node" -- weir-lab load http://web.shop.vip.weir.internal/ --rate 100 --duration 1s
done

step "the same name by dig"
on p1 -- dig +noall +answer web.shop.vip.weir.internal A
on p1 -- dig +noall +answer shop.weir.internal A
answer=$(quiet p1 -- dig +short web.shop.vip.weir.internal A)
expect "$answer" '^198\.1[89]\.'

step "a virtual IP without backends refuses at once; its name stands"
on a1 -- weir dns query empty.shop.vip.weir.internal
if quiet a1 -- curl -sS --max-time 2 http://empty.shop.vip.weir.internal/; then exit 1; fi

step "a backend is killed: gone within a second, no error for a client that retries"
quiet a1 -- weir-lab load http://web.shop.vip.weir.internal/ --rate 100 --duration 4s --retry 12 >/tmp/weir-demo-load.$$ &
load=$!
sleep 1
show weir-lab kill --lab demo a3 --task web
sleep 1
on a1 -- weir vip show web.shop
down=$(quiet a1 -- weir vip show web.shop -o json | grep -c '"state": "down"' || true)
wait $load || { cat /tmp/weir-demo-load.$$; exit 1; }
cat /tmp/weir-demo-load.$$; rm -f /tmp/weir-demo-load.$$
expect "$down" '^1$'

step "the outsider is refused on the private zone"
if on outsider -- curl -sS --max-time 1 http://10.80.0.11:8080/; then exit 1; fi
on c1 -- weir zone explain 10.80.0.99 private tcp/8080

step "and let in where the policy says"
on outsider -- curl -sS --max-time 2 http://203.0.113.31/
on c1 -- weir zone explain 203.0.113.99 public tcp/80

step "an agent is killed while requests go on: none fails"
quiet a1 -- weir-lab load http://198.18.0.10/ --rate 200 --duration 3s >/tmp/weir-demo-load.$$ &
load=$!
sleep 1
show weir-lab kill --lab demo a1 --agent
wait $load || { cat /tmp/weir-demo-load.$$; exit 1; }
cat /tmp/weir-demo-load.$$; rm -f /tmp/weir-demo-load.$$
if quiet outsider -- curl -sS --max-time 1 http://10.80.0.11:8080/ 2>/dev/null; then echo "the zone opened"; exit 1; fi
show weir-lab start --lab demo a1
on a1 -- weir status

step "done"
cat <<'TEXT'
The lab is still up. Try:
  export PATH=$PWD/bin:$PATH
  weir-lab shell a1                                   a shell on a node
  weir-lab exec a1 -- weir vip list                   what is served
  weir-lab exec a2 -- weir dns query a3.node.weir.internal
  $EDITOR examples/demo/state.d/services.yaml         then: weir-lab apply
  weir-lab logs a1 -f
make stop removes it all.
TEXT
