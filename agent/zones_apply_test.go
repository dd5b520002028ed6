package agent

import (
	"errors"
	"log/slog"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/weirproject/weir/api"
	"github.com/weirproject/weir/api/client"
)

// states of the history, the newest first.
func (r *rig) history() (states []string) {
	r.t.Helper()
	all, err := r.client.ZoneHistory(r.t.Context())
	if err != nil {
		r.t.Fatal(err)
	}
	for _, c := range all {
		states = append(states, string(c.State))
	}
	return states
}

// onlyNft is what the tests of changes need: they are the same for any filter.
func onlyNft(t *testing.T) (r *rig, here bool) {
	if !ownNetwork(t) {
		return nil, false
	}
	r = newRig(t)
	r.write("policy.yaml", "# people's own words\n"+rigPolicy)
	return r, true
}

func TestAPolicyThatNobodyConfirmsIsTakenBack(t *testing.T) {
	r, here := onlyNft(t)
	if !here {
		return
	}
	r.start()
	before := r.read("policy.yaml")
	done := r.apply(closed, 2*time.Second)
	if done.State != api.ChangePending || done.ID != 2 || len(done.Diff.Denied) != 1 || len(done.Diff.Allowed) != 0 {
		t.Errorf("got %+v", done)
	}
	if r.sshOpen() {
		t.Error("the kernel has the old policy when apply is done")
	}
	if _, err := r.client.ZoneApply(t.Context(), api.ZoneApply{ZonePolicyFile: api.ZonePolicyFile{File: "x", Text: rigPolicy}}); !problem409(err) {
		t.Errorf("a second change beside one that waits: %v", err)
	}
	r.await("the way back", r.sshOpen)
	if got := r.history(); !slices.Equal(got, []string{"rolled-back", "in-force"}) {
		t.Errorf("history %v", got)
	}
	if after := r.read("policy.yaml"); after != before {
		t.Errorf("the state's file has changed:\n%s", after)
	}
	if _, err := r.client.ZoneConfirm(t.Context()); err == nil {
		t.Error("what was taken back was confirmed")
	}
}

func problem409(err error) bool {
	var p *client.Problem
	return errors.As(err, &p) && p.Status == http.StatusConflict
}

func TestAConfirmedPolicyIsInTheFileAndOtherDocumentsStay(t *testing.T) {
	r, here := onlyNft(t)
	if !here {
		return
	}
	record := "kind: record\nname: x\ntype: A\ndata: 10.0.0.9\n"
	r.write("policy.yaml", record+"---\n"+rigPolicy+"---\n"+strings.Replace(record, "x", "y", 1))
	r.start()
	r.apply(closed+"# and why\n", time.Hour)
	if _, err := r.client.ZoneConfirm(t.Context()); err != nil {
		t.Fatal(err)
	}
	want := record + "---\n" + closed + "# and why\n---\n" + strings.Replace(record, "x", "y", 1)
	if got := r.read("policy.yaml"); got != want {
		t.Errorf("the file is\n%s\nwant\n%s", got, want)
	}
	r.stop()
	r.start()
	if r.sshOpen() {
		t.Error("it is gone after a restart")
	}
	if got := r.history(); !slices.Equal(got, []string{"in-force", "replaced"}) {
		t.Errorf("history %v", got)
	}
	x, err := r.client.ZoneExplain(t.Context(), "10.9.0.2", "a1", "tcp/22", "")
	if err != nil || x.File != filepath.Join(r.state, "policy.yaml") || x.Line != 10 || x.Hook != "input" || !slices.Equal(x.Nodes, []string{"a1"}) {
		t.Errorf("explain: got %+v, %v", x, err)
	}
	done, err := r.client.ZoneRollback(t.Context(), api.ZoneRollback{ID: 1, By: "me"})
	if err != nil || done.State != api.ChangeInForce || done.ID != 3 || !r.sshOpen() {
		t.Errorf("rollback: got %+v, %v", done, err)
	}
	if got := r.read("policy.yaml"); !strings.Contains(got, "name: ssh") || !strings.HasPrefix(got, record) {
		t.Errorf("the file is\n%s", got)
	}
}

func TestADeadlineCountsWhileTheAgentIsDown(t *testing.T) {
	r, here := onlyNft(t)
	if !here {
		return
	}
	r.start()
	r.apply(closed, time.Hour)
	r.stop()
	if r.sshOpen() {
		t.Fatal("the rules went with the agent")
	}
	r.start()
	if r.sshOpen() || r.agent.zones.policies.waiting() == nil {
		t.Error("a restart before the deadline has ended the change")
	}
	r.stop()
	// The deadline passes.
	path := filepath.Join(r.config.DataDir, "zones-pending.json")
	var p pendingPolicy
	if found, err := load(path, &p); !found || err != nil {
		t.Fatal(found, err)
	}
	p.Deadline = time.Now().Add(-time.Second)
	if err := save(path, p); err != nil {
		t.Fatal(err)
	}
	if _, err := Enforce(t.Context(), r.config, slog.New(slog.DiscardHandler)); err != nil || !r.sshOpen() {
		t.Errorf("the boot enforces what was not confirmed: %v", err)
	}
	r.start()
	if got := r.history(); !r.sshOpen() || !slices.Equal(got, []string{"rolled-back", "in-force"}) {
		t.Errorf("history %v", got)
	}
}

func TestADeadlineCountsWhileTheFilesAreBad(t *testing.T) {
	r, here := onlyNft(t)
	if !here {
		return
	}
	r.start()
	r.apply(closed, 2*time.Second)
	r.write("bad.yaml", "kind: nonsense\n")
	r.await("the way back", r.sshOpen)
	if err := os.Remove(filepath.Join(r.state, "bad.yaml")); err != nil {
		t.Fatal(err)
	}
	r.await("the good files", func() bool { return len(r.agent.Status().Refused) == 0 })
	if !r.sshOpen() {
		t.Error("the change came again")
	}
}

func TestWhoEditsTheFileHasTheLastWord(t *testing.T) {
	r, here := onlyNft(t)
	if !here {
		return
	}
	r.start()
	r.apply(closed, time.Hour)
	r.write("policy.yaml", strings.Replace(rigPolicy, "name: ssh", "name: ssh-again", 1))
	r.await("the file's policy", r.sshOpen)
	if got := r.history(); !slices.Equal(got, []string{"in-force", "rolled-back", "replaced"}) {
		t.Errorf("history %v", got)
	}
}

func TestALossOfAllPeersTakesTheChangeBack(t *testing.T) {
	r, here := onlyNft(t)
	if !here {
		return
	}
	r.start()
	r.apply(closed, time.Hour)
	p := r.agent.zones.policies
	p.mu.Lock()
	pending := *p.pending
	pending.Heard = map[string][]string{"peer": {"a2"}} // and now none is
	p.pending = &pending
	p.mu.Unlock()
	r.await("the way back", r.sshOpen)
	all, err := r.client.ZoneHistory(t.Context())
	if err != nil || !strings.Contains(all[0].Reason, "no peer is heard of any more (a2 before)") {
		t.Errorf("got %+v, %v", all, err)
	}
}

func TestAPolicyThatCutsItsAuthorIsRefused(t *testing.T) {
	r, here := onlyNft(t)
	if !here {
		return
	}
	r.start()
	ask := api.ZoneApply{ZonePolicyFile: api.ZonePolicyFile{File: "new.yaml", Text: closed}, Confirm: api.Duration(time.Hour), SSH: "203.0.113.9 40000 10.9.0.1 22"}
	_, err := r.client.ZoneApply(t.Context(), ask)
	if !problem409(err) || !strings.Contains(err.Error(), "your SSH session") || !strings.Contains(err.Error(), "{name: keep, from: [203.0.113.9], to: [private], allow: [tcp/22]}") {
		t.Errorf("got %v", err)
	}
	if !r.sshOpen() {
		t.Error("it is enforced all the same")
	}
	ask.Force = true
	if _, err := r.client.ZoneApply(t.Context(), ask); err != nil {
		t.Error(err)
	}
	if _, err := r.client.ZoneRollback(t.Context(), api.ZoneRollback{By: "me"}); err != nil || !r.sshOpen() {
		t.Errorf("rollback of the pending one: %v", err)
	}
	ask.Force, ask.Text = false, strings.Replace(rigPolicy, "{nodes: {role: agent}}", "{nodes: {role: agent}, whitelist: [10.0.0.1]}", 1)
	if _, err := r.client.ZoneApply(t.Context(), ask); err == nil || !strings.Contains(err.Error(), "add 203.0.113.9 to zones.private.whitelist") {
		t.Errorf("got %v", err)
	}
}

func TestAFaultyPolicyChangesNothing(t *testing.T) {
	r, here := onlyNft(t)
	if !here {
		return
	}
	r.start()
	for text, want := range map[string]string{
		"kind: policy\nzones: {a: {cidrs: [10.0.0.0/8]}}\nrules: [{name: r, from: [b], to: [a], allow: [any]}]\n": "new.yaml:3:26: rules[0].from[0]: there is no zone \"b\"",
		rigPolicy + "tests: [{from: a2, to: a1, port: tcp/80, expect: deny}]\n":                                   "new.yaml:7:9: tests[0]: expected deny",
		"kind: record\nname: x\ntype: A\ndata: 10.0.0.9\n":                                                        "record is no policy",
		"":                              "holds no policy",
		rigPolicy + "---\n" + rigPolicy: "is a second policy",
	} {
		_, err := r.client.ZoneApply(t.Context(), api.ZoneApply{ZonePolicyFile: api.ZonePolicyFile{File: "new.yaml", Text: text}})
		if err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%q: got %v, want %q", text, err, want)
		}
	}
	if !r.sshOpen() || len(r.history()) != 1 {
		t.Error("something has changed")
	}
}
