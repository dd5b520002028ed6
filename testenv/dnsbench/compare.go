package dnsbench

import (
	"context"
	"slices"
)

// kind of question, to some of the servers.
type kind struct {
	name    string // of the file of questions, and "tcp" for those by TCP
	file    string
	tcp     bool
	servers []string
}

// cluster measures names of the zone.
func (r *Result) cluster(ctx context.Context, o Options, b *bed, part string, names int) error {
	all := []string{weir, knot, nsd, unbound, coredns, library, echo}
	full := slices.DeleteFunc(slices.Clone(all), func(s string) bool { return s == echo })
	kinds := []kind{
		{name: "A", file: "a", servers: all}, {name: "SRV", file: "srv", servers: []string{weir}},
		{name: "NXDOMAIN", file: "none", servers: []string{weir}}, {name: "TCP", file: "a", tcp: true, servers: full},
	}
	if err := r.rounds(ctx, o, b, part, kinds, setup{names: names}); err != nil {
		return err
	}
	best := []string{knot, nsd, unbound}
	a := "A, " + part + " zone: "
	r.ratio(a+"rate, of the best of knot, nsd, unbound", 1.1, false, rate, part, "A", best...)
	r.ratio(a+"CPU per answer, of the best of them", 1, true, cpu, part, "A", best...)
	r.ratio(a+"CPU per answer, of a C echo server", 1.1, true, cpu, part, "A", echo)
	r.ratio(a+"rate, of CoreDNS", 2.7, false, rate, part, "A", coredns)
	r.ratio(a+"rate, of a bare miekg/dns server", 2, false, rate, part, "A", library)
	r.own("SRV, "+part+" zone: rate, of our own A", 0.9, part, "SRV", part, "A")
	r.own("NXDOMAIN, "+part+" zone: rate, of our own A", 0.9, part, "NXDOMAIN", part, "A")
	r.ratio("TCP, "+part+" zone: rate, of the best of knot, nsd, unbound", 2.5, false, rate, part, "TCP", best...)
	return nil
}

// fall compares the zones' sizes.
func (r *Result) fall() {
	r.own("A: rate in the large zone, of that in the small one", 0.85, "large", "A", "small", "A")
}

// outside measures names of others.
func (r *Result) outside(ctx context.Context, o Options, b *bed, part string) error {
	ttl, servers, file := 3600, []string{weir, unbound, coredns}, "cached"
	if part == "forwarded" {
		ttl, servers, file = 0, []string{weir, dnsdist, coredns, unbound}, "outside"
	}
	at := b.address()
	cmd, err := b.echo(ctx, at, ttl, 64)
	if err != nil {
		return err
	}
	upstream, err := run("upstream", at, cmd)
	if err != nil {
		return err
	}
	defer upstream.stop()
	s := setup{names: 0, upstream: at, cache: part == "cached"}
	if err := r.rounds(ctx, o, b, part, []kind{{name: "A", file: file, servers: servers}}, s); err != nil {
		return err
	}
	if part == "cached" {
		r.ratio("forwarded and cached: rate, of unbound", 1.1, false, rate, part, "A", unbound)
		r.ratio("forwarded and cached: CPU per answer, of unbound", 1, true, cpu, part, "A", unbound)
		r.ratio("forwarded and cached: rate, of CoreDNS", 1.8, false, rate, part, "A", coredns)
		return nil
	}
	r.ratio("forwarded: rate, of dnsdist", 1, false, rate, part, "A", dnsdist)
	r.ratio("forwarded: CPU per answer, of dnsdist", 1, true, cpu, part, "A", dnsdist)
	r.ratio("forwarded: rate, of CoreDNS", 2.5, false, rate, part, "A", coredns)
	return nil
}

// rounds starts all servers and measures them in turns.
func (r *Result) rounds(ctx context.Context, o Options, b *bed, part string, kinds []kind, s setup) error {
	count := s.names
	if s.upstream.IsValid() {
		count = o.Names // of outside names, which no server has
	}
	files, err := writeQuestions(b.dir, count)
	if err != nil {
		return err
	}
	running := map[string]*server{}
	defer func() {
		for _, one := range running {
			one.stop()
		}
	}()
	first := len(r.Rows)
	for _, k := range kinds {
		for _, name := range k.servers {
			if _, tried := running[name]; !tried && !slices.Contains(r.Missing, part+": "+name) {
				one, err := b.start(ctx, name, s)
				if err != nil {
					o.Log.Warn("server is left out", "server", name, "error", err)
					r.Missing = append(r.Missing, part+": "+name)
					continue
				}
				running[name] = one
			}
			if running[name] != nil {
				r.Rows = append(r.Rows, Row{Part: part, Kind: k.name, Server: name})
			}
		}
	}
	rows := r.Rows[first:]
	for round := range o.Rounds {
		for i := range rows {
			row := &rows[(i+round)%len(rows)] // each round begins with another one
			k := kinds[slices.IndexFunc(kinds, func(k kind) bool { return k.name == row.Kind })]
			m, err := b.perf(ctx, running[row.Server], files[k.file], k.tcp, o.Each.Seconds())
			if err != nil {
				return err
			}
			row.rounds = append(row.rounds, m)
			row.Lost, row.PSS = max(row.Lost, m.Lost), running[row.Server].memory()
			o.Log.Info("measured", "round", round, "kind", row.Kind, "server", row.Server, "rate", int(m.Rate), "cpu", m.CPU, "lost", m.Lost)
		}
	}
	for i := range rows {
		rows[i].Rate, rows[i].CPU = spreadOf(rows[i].values(rate)), spreadOf(rows[i].values(cpu))
	}
	return nil
}
