package main

import (
	"context"
	"encoding/json"
	"log/slog"
	"net"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/weirproject/weir/api"
	"github.com/weirproject/weir/controller"
	"github.com/weirproject/weir/controller/auth"
	"github.com/weirproject/weir/controller/members"
)

// cluster is a controller in memory, and what a user of it has.
type testCluster struct {
	t       *testing.T
	url     string
	member  *members.Member
	env     map[string]string
	folder  string
	context string
}

func startCluster(t *testing.T) *testCluster {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	log := slog.New(slog.DiscardHandler)
	c := &testCluster{t: t, url: "https://" + l.Addr().String(), folder: t.TempDir()}
	c.context = filepath.Join(c.folder, "private", "contexts.yaml")
	c.env = map[string]string{"WEIR_CONTEXTS": c.context}
	if c.member, err = members.OpenInMemory(t.Context(), members.Options{Name: "c1", URL: c.url, Log: log}); err != nil {
		t.Fatal(err)
	}
	brain, err := controller.New(controller.Options{
		Member: c.member, Listener: l, Range: controller.DefaultRange, Range6: controller.DefaultRange6, Names: controller.DefaultNames(), Log: log,
	})
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- brain.Run(ctx) }()
	t.Cleanup(func() {
		cancel()
		if err := <-done; err != nil {
			t.Error(err)
		}
	})
	return c
}

func (c *testCluster) token() string {
	c.t.Helper()
	token, err := c.member.Door.CreateToken(c.t.Context(), auth.TokenRequest{Role: auth.RoleOperator, Uses: 1})
	if err != nil {
		c.t.Fatal(err)
	}
	return token.Secret
}

// weir runs a command line that must end with the code.
func (c *testCluster) weir(code int, args ...string) (stdout, stderr string) {
	c.t.Helper()
	// The clock is the real one: logins end.
	stdout, stderr, got := run(c.t, c.env, args...)
	if got != code {
		c.t.Fatalf("weir %s: exit %d, want %d: %s%s", strings.Join(args, " "), got, code, stdout, stderr)
	}
	return stdout, stderr
}

func (c *testCluster) file(name, text string) string {
	c.t.Helper()
	path := filepath.Join(c.folder, name)
	if err := os.WriteFile(path, []byte(text), 0o644); err != nil {
		c.t.Fatal(err)
	}
	return path
}

func contains(t *testing.T, text string, parts ...string) {
	t.Helper()
	for _, part := range parts {
		if !strings.Contains(text, part) {
			t.Errorf("got\n%s\nwithout %q", text, part)
		}
	}
}

const webDocuments = `kind: service
name: web
namespace: shop
vips: ["web:80"]
backends:
- {address: "10.0.0.1:8080"}
---
kind: record
name: www
type: CNAME
data: [web.shop.vip.weir.internal.]
---
kind: node
name: a1
addresses: [10.0.0.1]
`

func TestLogInAndUseContexts(t *testing.T) {
	c := startCluster(t)
	_, talk := c.weir(1, "get", "service")
	contains(t, talk, "no cluster is known here: log in with weir login")
	c.weir(2, "login", c.url)
	token := c.token()
	_, talk = c.weir(0, "login", c.url, "--token", token)
	contains(t, talk, "logged in to cluster "+c.member.ClusterID)
	if info, err := os.Stat(c.context); err != nil || info.Mode().Perm() != 0o600 {
		t.Errorf("the contexts' file: %v, %v", info, err)
	}
	_, talk = c.weir(1, "login", c.url, "--token", token)
	contains(t, talk, "used already")
	c.weir(0, "login", c.url, "--token", c.token(), "--name", "second")
	out, _ := c.weir(0, "context", "list")
	contains(t, out, "*  second", "default")
	if strings.Contains(out, "weir1.") {
		t.Error("the list shows a token")
	}
	c.weir(0, "context", "use", "default")
	_, talk = c.weir(1, "context", "use", "third")
	contains(t, talk, `there is no context "third"; there are default, second`)
	c.weir(0, "get", "service", "--context", "second")
	if err := os.Chmod(c.context, 0o644); err != nil {
		t.Fatal(err)
	}
	_, talk = c.weir(1, "get", "service")
	contains(t, talk, "chmod 600")
}

func TestDocumentsAreAppliedComparedAndDeleted(t *testing.T) {
	c := startCluster(t)
	c.weir(0, "login", c.url, "--token", c.token())
	file := c.file("web.yaml", webDocuments)
	out, _ := c.weir(0, "apply", "-f", file, "--dry-run")
	contains(t, out, "service/web.shop/tcp created (dry run)", "node/a1 created")
	out, talk := c.weir(1, "diff", "-f", file)
	contains(t, out, "+ name: web", "+   - address: 10.0.0.1:8080")
	contains(t, talk, "differs")
	c.weir(0, "apply", "-f", file)
	if out, _ = c.weir(0, "diff", "-f", file); out != "" {
		t.Errorf("a diff of what was applied: %s", out)
	}
	c.file("web.yaml", strings.Replace(webDocuments, "8080", "8081", 1))
	out, talk = c.weir(1, "diff", "-f", file)
	contains(t, out, "service/web.shop/tcp changed", "-   - address: 10.0.0.1:8080", "+   - address: 10.0.0.1:8081")
	contains(t, talk, "differs")

	out, _ = c.weir(0, "get", "service")
	contains(t, out, "web.shop/tcp", "web:80, 1 backend")
	out, _ = c.weir(0, "get", "service", "web.shop", "-o", "yaml")
	again := c.file("again.yaml", out)
	out, _ = c.weir(0, "apply", "-f", again)
	contains(t, out, "service/web.shop/tcp unchanged")
	out, _ = c.weir(0, "get", "record", "www/CNAME", "-o", "json")
	var stored api.Stored
	if err := json.Unmarshal([]byte(out), &stored); err != nil || stored.Version == 0 {
		t.Errorf("got %s, %v", out, err)
	}
	_, talk = c.weir(1, "get", "service", "none")
	contains(t, talk, "service none: not found")

	c.weir(0, "delete", "record", "www/CNAME")
	c.weir(1, "delete", "record", "www/CNAME")
	c.weir(2, "delete", "record")
	out, _ = c.weir(0, "delete", "-f", again)
	contains(t, out, "service/web.shop/tcp deleted")
	out, _ = c.weir(0, "audit")
	contains(t, out, "operator/token-", "objects/record/www/CNAME", "delete", "login")
}

func TestFaultsHaveTheirPlaceInTheFile(t *testing.T) {
	c := startCluster(t)
	c.weir(0, "login", c.url, "--token", c.token())
	c.weir(0, "apply", "-f", c.file("web.yaml", webDocuments))
	bad := c.file("bad.yaml", "kind: service\nname: other\nvips: [\"other:80\", \"10.0.0.1:80\"]\n")
	_, talk := c.weir(1, "apply", "-f", bad)
	contains(t, talk, bad+":3:20: vips[1]: 10.0.0.1:80 is the address of the node a1")
	_, talk = c.weir(1, "apply", "-f", c.file("worse.yaml", "kind: service\nname: x\nvip: []\n"))
	contains(t, talk, "worse.yaml:3:1: vip")
	_, talk = c.weir(1, "apply", "-f", c.folder)
	contains(t, talk, "worse.yaml:3:1")
	_, talk = c.weir(1, "apply", "-f", c.file("twice.yaml", webDocuments+"---\n"+webDocuments))
	contains(t, talk, "service/web.shop/tcp is defined a second time; first at")
	c.weir(2, "apply")
	_, talk = c.weir(1, "apply", "-f", t.TempDir())
	contains(t, talk, "has no documents")
}

func TestAnObjectIsEditedUnlessSomebodyElseWasFirst(t *testing.T) {
	c := startCluster(t)
	c.weir(0, "login", c.url, "--token", c.token())
	c.weir(0, "apply", "-f", c.file("web.yaml", webDocuments))
	c.env["EDITOR"] = "sed -i s/8080/9090/"
	out, _ := c.weir(0, "edit", "service", "web.shop")
	contains(t, out, "service/web.shop/tcp changed")
	c.env["EDITOR"] = "true"
	_, talk := c.weir(0, "edit", "service", "web.shop")
	contains(t, talk, "nothing was changed")
	for editor, want := range map[string]string{
		"sed -i s/9090/0/":                   "backends[0].address: 10.0.0.1:0 has port 0",
		"sed -i 's/^name: web/name: other/'": "an object's name is for ever",
		"false":                              "edit with false",
	} {
		c.env["EDITOR"] = editor
		_, talk := c.weir(1, "edit", "service", "web.shop")
		contains(t, talk, want)
		if _, path, kept := strings.Cut(talk, "your text is kept in "); kept {
			_ = os.Remove(strings.TrimSpace(path))
		}
	}
	other := c.file("other.yaml", strings.Replace(webDocuments, "8080", "7070", 1))
	// Somebody applies while the editor is open.
	script := c.file("editor.sh", "#!/bin/sh\nsed -i s/9090/6060/ \"$1\"\ntouch "+c.folder+"/open\nwhile [ -e "+c.folder+"/open ]; do sleep 0.05; done\n")
	c.env["EDITOR"] = "sh " + script
	done := make(chan string, 1)
	go func() {
		_, talk, _ := run(t, c.env, "edit", "service", "web.shop")
		done <- talk
	}()
	for {
		if _, err := os.Stat(filepath.Join(c.folder, "open")); err == nil {
			break
		}
	}
	c.weir(0, "apply", "-f", other)
	_ = os.Remove(filepath.Join(c.folder, "open"))
	talk = <-done
	contains(t, talk, "somebody has changed it meanwhile")
	if _, path, kept := strings.Cut(talk, "your text is kept in "); kept {
		_ = os.Remove(strings.TrimSpace(path))
	}
}

func TestNodesAreListedDrainedAndRemoved(t *testing.T) {
	c := startCluster(t)
	c.weir(0, "login", c.url, "--token", c.token())
	c.weir(0, "apply", "-f", c.file("web.yaml", webDocuments))
	out, _ := c.weir(0, "node", "list")
	contains(t, out, "a1", "10.0.0.1", "not joined")
	c.weir(0, "node", "drain", "a1")
	out, _ = c.weir(0, "node", "show", "a1")
	contains(t, out, "not joined, draining")
	c.weir(0, "node", "undrain", "a1")
	out, _ = c.weir(0, "node", "show", "a1", "-o", "json")
	if strings.Contains(out, "draining") {
		t.Errorf("it still drains: %s", out)
	}
	c.weir(0, "node", "remove", "a1")
	_, talk := c.weir(1, "node", "show", "a1")
	contains(t, talk, "not found")
	_, talk = c.weir(1, "node", "drain", "a1")
	contains(t, talk, "not found")
}

func TestLinesAreCompared(t *testing.T) {
	before := strings.Split("a b c d e f g h", " ")
	after := strings.Split("a b c d x f g h i", " ")
	got := strings.Join(lineDiff(before, after), "|")
	if want := "  b|  c|  d|- e|+ x|  f|  g|  h|+ i"; got != want {
		t.Errorf("got %s, want %s", got, want)
	}
	if got := lineDiff(nil, []string{"a"}); len(got) != 1 || got[0] != "+ a" {
		t.Errorf("got %v", got)
	}
}
