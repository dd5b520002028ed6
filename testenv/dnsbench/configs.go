package dnsbench

// configs serve the zone, and forwardConfigs ask an upstream. Two workers each,
// as the machines that this was written for have two CPUs. NSD's limit of
// answers per second is off, or it would be all that is measured.
var configs = map[string]string{
	knot: `server:
  rundir: DIR
  listen: ADDRESS@PORT
  udp-workers: 2
  tcp-workers: 2
database:
  storage: DIR
log:
- target: stderr
  any: error
zone:
- domain: DOMAIN
  file: DIR/zone
  semantic-checks: off
  zonefile-sync: -1
  journal-content: none
`,
	nsd: `server:
  ip-address: ADDRESS@PORT
  server-count: 2
  reuseport: yes
  username: ""
  zonesdir: "DIR"
  database: ""
  pidfile: "DIR/pid"
  xfrdfile: "DIR/xfrd"
  xfrdir: "DIR"
  zonelistfile: "DIR/zonelist"
  logfile: "DIR/log"
  rrl-ratelimit: 0
  rrl-whitelist-ratelimit: 0
remote-control:
  control-enable: no
zone:
  name: DOMAIN
  zonefile: "DIR/zone"
`,
	unbound: unboundServer + `  local-zone: "." refuse
include: "DIR/zone"
remote-control:
  control-enable: no
`,
	coredns: `DOMAIN:PORT {
  bind ADDRESS
  file DIR/zone DOMAIN
}
`,
}

const unboundServer = `server:
  directory: "DIR"
  username: ""
  chroot: ""
  pidfile: ""
  use-syslog: no
  logfile: "DIR/log"
  verbosity: 0
  do-daemonize: no
  interface: ADDRESS@PORT
  num-threads: 2
  so-reuseport: yes
  module-config: "iterator"
  access-control: 127.0.0.0/8 allow
  do-not-query-localhost: no
  incoming-num-tcp: 100
`

var forwardConfigs = map[string]string{
	unbound: unboundServer + `  domain-insecure: "."
  msg-cache-size: 16m
  rrset-cache-size: 32m
forward-zone:
  name: "."
  forward-addr: UPSTREAM@UPPORT
remote-control:
  control-enable: no
`,
	coredns: `.:PORT {
  bind ADDRESS
  cache 3600
  forward . UPSTREAM:UPPORT
}
`,
	dnsdist: `setLocal("ADDRESS:PORT",{reusePort=true})
addLocal("ADDRESS:PORT",{reusePort=true})
newServer({address="UPSTREAM:UPPORT",sockets=4,healthCheckMode="up"})
setACL("127.0.0.0/8")
setSecurityPollSuffix("")
`,
}
