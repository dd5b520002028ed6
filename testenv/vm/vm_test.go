package vm

import (
	"os"
	"os/exec"
	"strings"
	"testing"
)

func TestSelfRunsTheBodyOnTheOtherKernel(t *testing.T) {
	here, _ := os.ReadFile("/proc/sys/kernel/osrelease")
	t.Logf("kernel %s", here)
	if !Self(t, Options{Modules: []string{"dummy"}, Loadable: []string{"ip_vs_mh"}}) {
		return
	}
	if !strings.Contains(string(here), "cloud-amd64") {
		t.Errorf("runs on kernel %s", here)
	}
	loaded := func(name string) bool { _, err := os.Stat("/sys/module/" + name); return err == nil }
	if !loaded("dummy") || loaded("ip_vs") {
		t.Errorf("dummy loaded: %t, ip_vs loaded: %t; want dummy alone", loaded("dummy"), loaded("ip_vs"))
	}
	if out, err := exec.Command("modprobe", "ip_vs_mh").CombinedOutput(); err != nil || !loaded("ip_vs") || !loaded("ip_vs_mh") {
		t.Errorf("modprobe ip_vs_mh: %v %s", err, out)
	}
}
