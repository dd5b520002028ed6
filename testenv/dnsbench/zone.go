package dnsbench

import (
	"bufio"
	"fmt"
	"math/rand/v2"
	"net/netip"
	"os"
	"path/filepath"

	"github.com/weirproject/weir/api"
)

// domain is the zone that all servers have.
const domain = "weir.internal"

// maxQuestions are in a file for the client, which begins anew at its end.
const maxQuestions = 200_000

func hostName(i int) string { return fmt.Sprintf("host%d.rack%d", i, i%100) }

func hostAddress(i int) netip.Addr {
	return netip.AddrFrom4([4]byte{10, byte(i >> 16), byte(i >> 8), byte(i)})
}

// snapshot has that many names, each with an address and a service record.
func snapshot(names int) *api.Snapshot {
	s := &api.Snapshot{Revision: 1}
	for i := range names {
		name := hostName(i)
		s.Records = append(s.Records,
			api.Record{Name: name, Type: api.RecordA, Data: []string{hostAddress(i).String()}},
			api.Record{Name: "_http._tcp." + name, Type: api.RecordSRV, Data: []string{"0 1 80 " + name}})
	}
	return s
}

// writeZone writes the same as a zone file.
func writeZone(path string, names int) error {
	return writeLines(path, func(line func(string, ...any)) {
		line("$ORIGIN %s.", domain)
		line("$TTL 5")
		line("@ SOA ns hostmaster 1 60 60 86400 5")
		line("@ NS ns")
		line("ns A 127.0.0.1")
		for i := range names {
			line("%s A %s", hostName(i), hostAddress(i))
			line("_http._tcp.%s SRV 0 1 80 %s", hostName(i), hostName(i))
		}
	})
}

// writeLocalData writes the same for unbound, which then need not ask anybody.
func writeLocalData(path string, names int) error {
	return writeLines(path, func(line func(string, ...any)) {
		line("server:")
		line("local-zone: \"%s.\" static", domain)
		line("local-data: \"%s. 5 IN SOA ns.%s. hostmaster.%s. 1 60 60 86400 5\"", domain, domain, domain)
		for i := range names {
			line("local-data: \"%s.%s. 5 IN A %s\"", hostName(i), domain, hostAddress(i))
			line("local-data: \"_http._tcp.%s.%s. 5 IN SRV 0 1 80 %s.%s.\"", hostName(i), domain, hostName(i), domain)
		}
	})
}

func writeLines(path string, write func(line func(string, ...any))) error {
	file, err := os.Create(path)
	if err != nil {
		return fmt.Errorf("write a zone: %w", err)
	}
	defer file.Close()
	w := bufio.NewWriter(file)
	write(func(format string, values ...any) { fmt.Fprintf(w, format+"\n", values...) })
	if err := w.Flush(); err != nil {
		return fmt.Errorf("write %s: %w", path, err)
	}
	return nil
}

// questions are files of what the client asks, by kind.
type questions map[string]string

// writeQuestions makes those about the cluster's names (a, srv, none), in random
// order, and those about outside ones: cached, of which there are few, and
// outside, of which there are many.
func writeQuestions(dir string, names int) (questions, error) {
	all := questions{}
	write := func(kind string, count int, text func(int) string) error {
		all[kind] = filepath.Join(dir, fmt.Sprint(kind, names, ".txt"))
		return writeLines(all[kind], func(line func(string, ...any)) {
			for range count {
				line("%s", text(rand.IntN(max(names, 1))))
			}
		})
	}
	count := min(maxQuestions, 100*names)
	for kind, text := range map[string]func(int) string{
		"a":       func(i int) string { return hostName(i) + "." + domain + " A" },
		"srv":     func(i int) string { return "_http._tcp." + hostName(i) + "." + domain + " SRV" },
		"none":    func(i int) string { return fmt.Sprintf("none%d.rack%d.%s A", i, i%100, domain) },
		"cached":  func(i int) string { return fmt.Sprintf("www%d.example.com A", i%1000) },
		"outside": func(i int) string { return fmt.Sprintf("www%d.example.com A", i) },
	} {
		if err := write(kind, count, text); err != nil {
			return nil, err
		}
	}
	return all, nil
}
