package dnsbench

import (
	"context"
	"fmt"
	"os/exec"
	"regexp"
	"strconv"
	"time"
)

// measurement of one server by the client.
type measurement struct {
	Rate float64 // answers per second
	CPU  float64 // microseconds of the server's own time per answer
	Lost float64 // share of the questions
}

var (
	perfDone = regexp.MustCompile(`Queries completed:\s+(\d+)`)
	perfRate = regexp.MustCompile(`Queries per second:\s+([0-9.]+)`)
	perfLost = regexp.MustCompile(`Queries lost:\s+\d+ \(([0-9.]+)%\)`)
)

// perf asks a server for a while, with 800 questions under way at most: 100 on
// each of 8 sockets, or of 4 connections.
func (b *bed) perf(ctx context.Context, s *server, file string, tcp bool, seconds float64) (m measurement, err error) {
	args := []string{"-s", s.address.Addr().String(), "-p", fmt.Sprint(s.address.Port()), "-d", file, "-T", "1", "-t", "1", "-l", fmt.Sprintf("%.1f", seconds)}
	if tcp {
		args = append(args, "-m", "tcp", "-c", "4", "-q", "400")
	} else {
		args = append(args, "-c", "8", "-q", "100")
	}
	var cmd *exec.Cmd
	if cmd, err = b.command(ctx, "dnsperf", args...); err != nil {
		return m, err
	}
	before := s.cpu()
	out, err := cmd.CombinedOutput()
	spent := s.cpu() - before
	if err != nil {
		return m, fmt.Errorf("run dnsperf: %w: %.300s", err, out)
	}
	number := func(of *regexp.Regexp) float64 {
		found := of.FindSubmatch(out)
		if found == nil {
			err = fmt.Errorf("read dnsperf's report: no %s", of)
			return 0
		}
		n, _ := strconv.ParseFloat(string(found[1]), 64)
		return n
	}
	done := number(perfDone)
	m = measurement{Rate: number(perfRate), Lost: number(perfLost) / 100}
	if done > 0 {
		m.CPU = float64(spent) / float64(time.Microsecond) / done
	}
	return m, err
}
