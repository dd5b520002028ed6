package dnsbench

import (
	"bufio"
	"bytes"
	"encoding/json"
	"fmt"
	"io"
	"net"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"time"

	"github.com/miekg/dns"
)

// patience is how long a server may take to load its zone.
const patience = 60 * time.Second

// server is one that runs, with all its processes.
type server struct {
	name    string
	address netip.AddrPort
	cmd     *exec.Cmd
	input   io.WriteCloser
	output  *bufio.Reader
	ended   chan struct{}
}

// run starts a command in a process group of its own and waits until it answers.
func run(name string, at netip.AddrPort, cmd *exec.Cmd) (*server, error) {
	s := &server{name: name, address: at, cmd: cmd, ended: make(chan struct{})}
	var err error
	if s.input, err = cmd.StdinPipe(); err != nil {
		return nil, err
	}
	out, err := cmd.StdoutPipe()
	if err != nil {
		return nil, err
	}
	s.output = bufio.NewReader(out)
	var complaint bytes.Buffer
	cmd.Stderr = &complaint
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true, Pdeathsig: syscall.SIGKILL}
	if err := cmd.Start(); err != nil {
		return nil, fmt.Errorf("start %s: %w", name, err)
	}
	go func() { cmd.Wait(); close(s.ended) }()
	for began := time.Now(); time.Since(began) < patience; time.Sleep(50 * time.Millisecond) {
		select {
		case <-s.ended:
			return nil, fmt.Errorf("start %s: it ended: %s", name, strings.TrimSpace(complaint.String()))
		default:
		}
		if s.answers() {
			return s, nil
		}
	}
	s.stop()
	return nil, fmt.Errorf("start %s: it did not answer within %s: %s", name, patience, strings.TrimSpace(complaint.String()))
}

// answers tells whether the server has an answer, from its zone or an upstream.
func (s *server) answers() bool {
	for _, name := range []string{hostName(0) + "." + domain + ".", "www.example.com."} {
		m, err := dns.Exchange(new(dns.Msg).SetQuestion(name, dns.TypeA), s.address.String())
		if err == nil && len(m.Answer) > 0 {
			return true
		}
	}
	return false
}

func (s *server) stop() {
	s.input.Close()
	syscall.Kill(-s.cmd.Process.Pid, syscall.SIGTERM)
	select {
	case <-s.ended:
	case <-time.After(5 * time.Second):
		syscall.Kill(-s.cmd.Process.Pid, syscall.SIGKILL)
		<-s.ended
	}
}

// tell has our own server do something, and gives its state.
func (s *server) tell(word string) (state childState, err error) {
	if _, err := fmt.Fprintln(s.input, word); err != nil {
		return state, fmt.Errorf("tell %s to %s: %w", s.name, word, err)
	}
	for {
		line, err := s.output.ReadBytes('\n')
		if err != nil {
			return state, fmt.Errorf("tell %s to %s: %w", s.name, word, err)
		}
		// The first line only says that it serves.
		if err := json.Unmarshal(line, &state); err == nil && state.Goroutines > 0 {
			return state, nil
		}
	}
}

// processes of the server's group.
func (s *server) processes() (all []int) {
	paths, _ := filepath.Glob("/proc/[0-9]*/stat")
	for _, path := range paths {
		fields := statOf(path)
		if len(fields) > 12 && fields[2] == strconv.Itoa(s.cmd.Process.Pid) {
			pid, _ := strconv.Atoi(filepath.Base(filepath.Dir(path)))
			all = append(all, pid)
		}
	}
	return all
}

// statOf gives the fields of a process behind its name: its state is 0, its
// group 2, its times 11 and 12.
func statOf(path string) []string {
	text, _ := os.ReadFile(path)
	_, rest, _ := strings.Cut(string(text), ") ")
	return strings.Fields(rest)
}

// cpu is the time that the server's processes have taken so far, of user and
// system, in hundredths of a second on Linux.
func (s *server) cpu() time.Duration {
	ticks := 0
	for _, pid := range s.processes() {
		if fields := statOf(fmt.Sprintf("/proc/%d/stat", pid)); len(fields) > 12 {
			user, _ := strconv.Atoi(fields[11])
			system, _ := strconv.Atoi(fields[12])
			ticks += user + system
		}
	}
	return time.Duration(ticks) * 10 * time.Millisecond
}

// memory is the server's proportional set size in bytes.
func (s *server) memory() (bytes uint64) {
	for _, pid := range s.processes() {
		text, _ := os.ReadFile(fmt.Sprintf("/proc/%d/smaps_rollup", pid))
		for line := range strings.Lines(string(text)) {
			if fields := strings.Fields(line); len(fields) == 3 && fields[0] == "Pss:" {
				kib, _ := strconv.ParseUint(fields[1], 10, 64)
				bytes += kib << 10
			}
		}
	}
	return bytes
}

// dial opens a socket to the server.
func (s *server) dial() (*net.UDPConn, error) {
	return net.DialUDP("udp", nil, net.UDPAddrFromAddrPort(s.address))
}
