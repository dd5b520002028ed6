package dnsbench

import (
	"context"
	_ "embed"
	"encoding/json"
	"fmt"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
)

//go:embed echo/echo.c
var echoSource []byte

// Names of what is measured.
const (
	weir    = "weir"
	echo    = "C echo"
	library = "miekg/dns"
	knot    = "knot"
	nsd     = "nsd"
	unbound = "unbound"
	coredns = "coredns"
	dnsdist = "dnsdist"
)

// bed is where servers lie: a folder for their files, and the folder that
// scripts/bench-packages has unpacked peers into.
type bed struct {
	dir, peers string
	used       int // addresses
}

// address is a loopback address that nobody else has, since the whole of
// 127.0.0.0/8 is the machine's own. The port is no privileged one.
func (b *bed) address() netip.AddrPort {
	b.used++
	return netip.AddrPortFrom(netip.AddrFrom4([4]byte{127, 53, byte(os.Getpid()), byte(b.used)}), 5300)
}

// find looks a program up among the peers, then in the PATH.
func (b *bed) find(program string) (string, error) {
	for _, folder := range []string{"usr/sbin", "usr/bin", "bin"} {
		path := filepath.Join(b.peers, folder, program)
		if _, err := os.Stat(path); err == nil {
			return path, nil
		}
	}
	return exec.LookPath(program)
}

// command runs a peer's program with the libraries that were unpacked beside it.
func (b *bed) command(ctx context.Context, program string, args ...string) (*exec.Cmd, error) {
	path, err := b.find(program)
	if err != nil {
		return nil, err
	}
	cmd := exec.CommandContext(ctx, path, args...)
	cmd.Env = append(os.Environ(), "LD_LIBRARY_PATH="+filepath.Join(b.peers, "usr/lib/x86_64-linux-gnu"))
	cmd.Dir = b.dir
	return cmd, nil
}

// setup is what a server shall have.
type setup struct {
	names    int
	upstream netip.AddrPort // not valid: the zone only
	cache    bool
}

// start begins one server. An error means that it is not there or does not run.
func (b *bed) start(ctx context.Context, name string, s setup) (*server, error) {
	at := b.address()
	dir := filepath.Join(b.dir, fmt.Sprint(strings.ReplaceAll(name, "/", "-"), b.used))
	if err := os.Mkdir(dir, 0o755); err != nil {
		return nil, err
	}
	var cmd *exec.Cmd
	var err error
	switch name {
	case weir, library:
		cmd, err = childCommand(ctx, childJob{Library: name == library, Listen: at, Names: s.names, Upstream: s.upstream})
	case echo:
		cmd, err = b.echo(ctx, at, 5, 1)
	default:
		cmd, err = b.peer(ctx, name, dir, at, s)
	}
	if err != nil {
		return nil, fmt.Errorf("start %s: %w", name, err)
	}
	return run(name, at, cmd)
}

func childCommand(ctx context.Context, j childJob) (*exec.Cmd, error) {
	text, err := json.Marshal(j)
	if err != nil {
		return nil, err
	}
	self, err := os.Executable()
	if err != nil {
		return nil, err
	}
	cmd := exec.CommandContext(ctx, self)
	cmd.Env = append(os.Environ(), childVariable+"="+string(text))
	return cmd, nil
}

// echo compiles the echo server once, and runs it.
func (b *bed) echo(ctx context.Context, at netip.AddrPort, ttl, batch int) (*exec.Cmd, error) {
	path := filepath.Join(b.dir, "echo")
	if _, err := os.Stat(path); err != nil {
		if err := os.WriteFile(path+".c", echoSource, 0o644); err != nil {
			return nil, err
		}
		if out, err := exec.CommandContext(ctx, "cc", "-O2", "-pthread", "-o", path, path+".c").CombinedOutput(); err != nil {
			return nil, fmt.Errorf("compile the echo server: %w: %s", err, out)
		}
	}
	return exec.CommandContext(ctx, path, at.Addr().String(), fmt.Sprint(at.Port()), fmt.Sprint(ttl), fmt.Sprint(batch)), nil
}

// peer writes a server's files and gives its command.
func (b *bed) peer(ctx context.Context, name, dir string, at netip.AddrPort, s setup) (*exec.Cmd, error) {
	fill := strings.NewReplacer(
		"DIR", dir, "ADDRESS", at.Addr().String(), "PORT", fmt.Sprint(at.Port()), "DOMAIN", domain,
		"UPSTREAM", s.upstream.Addr().String(), "UPPORT", fmt.Sprint(s.upstream.Port()))
	text, zone := configs[name], filepath.Join(dir, "zone")
	if s.upstream.IsValid() {
		text = forwardConfigs[name]
		if !s.cache {
			text = strings.ReplaceAll(text, "cache 3600\n", "")
		}
	} else if name == unbound {
		if err := writeLocalData(zone, s.names); err != nil {
			return nil, err
		}
	} else if err := writeZone(zone, s.names); err != nil {
		return nil, err
	}
	config := filepath.Join(dir, "config")
	if err := os.WriteFile(config, []byte(fill.Replace(text)), 0o644); err != nil {
		return nil, err
	}
	switch name {
	case knot:
		return b.command(ctx, "knotd", "-c", config)
	case nsd:
		return b.command(ctx, "nsd", "-d", "-c", config)
	case unbound:
		return b.command(ctx, "unbound", "-d", "-c", config)
	case dnsdist:
		return b.command(ctx, "dnsdist", "--supervised", "--disable-syslog", "-C", config)
	case coredns:
		return b.command(ctx, "coredns", "-conf", config)
	}
	return nil, fmt.Errorf("there is no server %q", name)
}
