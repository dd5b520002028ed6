package api

import (
	"encoding/json"
	"fmt"
	"net/netip"
	"reflect"
	"strings"
	"testing"
)

func decodeApp(t *testing.T, text string) App {
	t.Helper()
	a := NewApp()
	if err := json.Unmarshal([]byte(text), &a); err != nil {
		t.Fatal(err)
	}
	a.Complete()
	return a
}

func TestAppHasMarathonsDefaults(t *testing.T) {
	a := decodeApp(t, `{"id": "web", "cmd": "sleep 1", "healthChecks": [{}]}`)
	if err := a.Validate(); err != nil {
		t.Fatal(err)
	}
	got, err := json.Marshal(a)
	if err != nil {
		t.Fatal(err)
	}
	want := `{"id":"/web","cmd":"sleep 1","cpus":1,"mem":128,"disk":0,"gpus":0,"instances":1,"networks":[{"mode":"host"}],` +
		`"portDefinitions":[{"port":0,"protocol":"tcp","name":"default"}],"requirePorts":false,"healthChecks":[{"protocol":"HTTP","path":"/",` +
		`"portIndex":0,"gracePeriodSeconds":300,"intervalSeconds":60,"timeoutSeconds":20,"maxConsecutiveFailures":3,"delaySeconds":15,"ipProtocol":"IPv4"}],` +
		`"upgradeStrategy":{"minimumHealthCapacity":1,"maximumOverCapacity":1},"backoffSeconds":1,"backoffFactor":1.15,"maxLaunchDelaySeconds":300,` +
		`"killSelection":"YOUNGEST_FIRST","unreachableStrategy":{"inactiveAfterSeconds":30,"expungeAfterSeconds":30}}`
	if string(got) != want {
		t.Errorf("got  %s\nwant %s", got, want)
	}
	again := decodeApp(t, string(got))
	if !reflect.DeepEqual(a, again) {
		t.Errorf("a completed app changes when it is completed again: %+v", again)
	}
}

func TestAppIDsAreMadeAbsolute(t *testing.T) {
	a := decodeApp(t, `{"id": "/shop/./web", "cmd": "x", "dependencies": ["db", "../auth", "/log/all"]}`)
	if a.ID != "/shop/web" || !reflect.DeepEqual(a.Dependencies, []string{"/shop/db", "/auth", "/log/all"}) {
		t.Errorf("got %s, %v", a.ID, a.Dependencies)
	}
}

func TestBadAppsAreRefusedByField(t *testing.T) {
	for text, want := range map[string]string{
		`{"id": "/Web", "cmd": "x"}`:                                                                                          "id: ",
		`{"id": "/web/restart", "cmd": "x"}`:                                                                                  "id: ",
		`{"id": "/web"}`:                                                                                                      "cmd: is missing",
		`{"id": "/web", "cmd": "x", "args": ["y"]}`:                                                                           "args: ",
		`{"id": "/web", "cmd": "x", "cpus": -1}`:                                                                              "cpus: ",
		`{"id": "/web", "cmd": "x", "instances": -2}`:                                                                         "instances: ",
		`{"id": "/web", "cmd": "x", "constraints": [["@zone", "NEAR"]]}`:                                                      "constraints[0][1]: ",
		`{"id": "/web", "cmd": "x", "constraints": [["@zone", "MAX_PER", "none"]]}`:                                           "constraints[0][2]: ",
		`{"id": "/web", "cmd": "x", "constraints": [["rack", "LIKE", "("]]}`:                                                  "constraints[0][2]: ",
		`{"id": "/web", "cmd": "x", "env": {"A": {"secret": "s"}}}`:                                                           "env.A: ",
		`{"id": "/web", "cmd": "x", "networks": [{"mode": "container"}]}`:                                                     "networks[0].name: ",
		`{"id": "/web", "cmd": "x", "networks": [{"mode": "host"}, {"mode": "container", "name": "a"}]}`:                      "networks[0].mode: ",
		`{"id": "/web", "cmd": "x", "portDefinitions": [{"name": "a"}, {"name": "a"}]}`:                                       "portDefinitions[1].name: ",
		`{"id": "/web", "cmd": "x", "portDefinitions": [{"protocol": "sctp"}]}`:                                               "portDefinitions[0].protocol: ",
		`{"id": "/web", "cmd": "x", "healthChecks": [{"portIndex": 1}]}`:                                                      "healthChecks[0].portIndex: ",
		`{"id": "/web", "cmd": "x", "healthChecks": [{"protocol": "COMMAND"}]}`:                                               "healthChecks[0].command.value: ",
		`{"id": "/web", "cmd": "x", "healthChecks": [{"protocol": "PING"}]}`:                                                  "healthChecks[0].protocol: ",
		`{"id": "/web", "cmd": "x", "readinessChecks": [{}]}`:                                                                 "readinessChecks[0].portName: ",
		`{"id": "/web", "cmd": "x", "upgradeStrategy": {"minimumHealthCapacity": 2}}`:                                         "upgradeStrategy.minimumHealthCapacity: ",
		`{"id": "/web", "cmd": "x", "unreachableStrategy": {"inactiveAfterSeconds": 9}}`:                                      "unreachableStrategy.expungeAfterSeconds: ",
		`{"id": "/web", "cmd": "x", "fetch": [{"uri": "ftp://a/b"}]}`:                                                         "fetch[0].uri: ",
		`{"id": "/web", "cmd": "x", "fetch": [{"uri": "/a", "destPath": "../b"}]}`:                                            "fetch[0].destPath: ",
		`{"id": "/web", "cmd": "x", "container": {"type": "LXC"}}`:                                                            "container.type: ",
		`{"id": "/web", "cmd": "x", "container": {"type": "DOCKER"}}`:                                                         "container.docker: ",
		`{"id": "/web", "cmd": "x", "container": {"volumes": [{"containerPath": "/a", "persistent": {}}]}}`:                   "container.volumes[0].persistent: ",
		`{"id": "/web", "cmd": "x", "container": {"docker": {"image": "a", "pullConfig": {"secret": "s"}}}}`:                  "container.docker.pullConfig: ",
		`{"id": "/web", "cmd": "x", "container": {"portMappings": [{"containerPort": 1}]}}`:                                   "container.portMappings: ",
		`{"id": "/web", "cmd": "x", "dependencies": ["/web"]}`:                                                                "dependencies[0]: ",
		`{"id": "/web", "cmd": "x", "canary": {"instances": 3}, "instances": 2}`:                                              "canary.instances: ",
		`{"id": "/web", "cmd": "x", "resourceLimits": {"cpus": 0.5}}`:                                                         "resourceLimits.cpus: ",
		`{"id": "/web", "cmd": "x", "resourceLimits": {"mem": "unlimited"}}`:                                                  "resourceLimits.mem: ",
		`{"id": "/web", "cmd": "x", "killSelection": "ANY"}`:                                                                  "killSelection: ",
		`{"id": "/web", "cmd": "x", "spread": ["moon"]}`:                                                                      "spread[0]: ",
		`{"id": "/web", "cmd": "x", "networks": [{"mode": "container/bridge"}], "portDefinitions": [{"port": 80}]}`:           "portDefinitions: ",
		`{"id": "/web", "cmd": "x", "networks": [{"mode": "container", "name": "a"}, {"mode": "container", "name": "a"}]}`:    "networks[1].name: ",
		`{"id": "/web", "cmd": "x", "networks": [{"mode": "container", "name": "a"}], "healthChecks": [{"protocol": "TCP"}]}`: "healthChecks[0].port: ",
	} {
		a := decodeApp(t, text)
		if err := a.Validate(); err == nil || !strings.HasPrefix(err.Error(), want) || len(FieldErrors(err)) != 1 {
			t.Errorf("%s: got %v, want %s", text, err, want)
		}
	}
}

func TestVIPLabelsAreReadAsInDCOS(t *testing.T) {
	for value, want := range map[string]VIP{
		"/web:80":               {Name: "web", Port: 80},
		"web:80":                {Name: "web", Port: 80},
		"/a/b:1":                {Name: "ab", Port: 1},
		"192.168.99.10:80":      {Addr: netip.MustParseAddr("192.168.99.10"), Port: 80},
		"fd01:c::5:80":          {Addr: netip.MustParseAddr("fd01:c::5"), Port: 80},
		"[fd01:c::5]:80":        {Addr: netip.MustParseAddr("fd01:c::5"), Port: 80},
		"/outer/sub/myapp:8080": {Name: "outersubmyapp", Port: 8080},
	} {
		if got, err := ParseVIPLabel(value); err != nil || got != want {
			t.Errorf("%s: got %+v, %v", value, got, err)
		}
	}
	for _, value := range []string{"", "x", "x:0", "x:abc", ":80", "x:70000", "/:80", "--:80"} {
		if got, err := ParseVIPLabel(value); err == nil {
			t.Errorf("%q: got %+v", value, got)
		}
	}
}

func TestVIPNamesAreSanitisedAsInDCOS(t *testing.T) {
	for host, want := range map[string]string{
		"-4abc123":                      "4abc123",
		"fd%gsf---gs7-f$gs--d7fddg-123": "fdgsf---gs7-fgs--d7fddg-123",
		"89fdgsf---gs7-fgs--d7fddg-":    "89fdgsf---gs7-fgs--d7fddg",
		"0-0":                           "0-0",
		"##fdgsf---gs7-fgs--d7fddg123456789012345678901234567890123456789-":         "fdgsf---gs7-fgs--d7fddg123456789012345678901234567890123456789",
		"fd%gsf---gs7-f$gs--d7fddg123456789012345678901234567890123456789-123":      "fdgsf---gs7-fgs--d7fddg1234567890123456789012345678901234567891",
		strings.Repeat("a", 62) + "--" + strings.Repeat("b", 5):                     strings.Repeat("a", 62) + "b",
		strings.Repeat("a", 62) + "-b":                                              strings.Repeat("a", 62) + "b",
		strings.Repeat("a", 60) + "---" + "c-" + strings.Repeat("d", 4) + "eeeeeee": strings.Repeat("a", 60) + "c-d",
	} {
		if got := VIPName(host); got != want {
			t.Errorf("%s:\ngot  %s\nwant %s", host, got, want)
		}
	}
}

func TestVIPsOfAnAppAreThoseOfItsPorts(t *testing.T) {
	a := decodeApp(t, `{"id": "/web", "cmd": "x", "networks": [{"mode": "container", "name": "dcos"}], "container": {"portMappings": [
		{"containerPort": 8080, "labels": {"VIP_0": "/web:80", "vip_x": "192.168.99.10:80", "Vip_0": "no:1", "VIPER": "bad", "other": "x:1"}},
		{"containerPort": 53, "protocol": "udp,tcp", "labels": {"VIP_0": "/dns:53"}}]}}`)
	got, err := a.VIPs()
	want := "[{0 VIP_0 web:80 [tcp]} {0 vip_x 192.168.99.10:80 [tcp]} {1 VIP_0 dns:53 [tcp udp]}]"
	if fmt.Sprint(got) != want {
		t.Errorf("got  %v\nwant %s", got, want)
	}
	if err == nil || !strings.HasPrefix(err.Error(), "container.portMappings[0].labels.VIPER: ") {
		t.Errorf("got %v", err)
	}
}
