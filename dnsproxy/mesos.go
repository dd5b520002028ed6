package dnsproxy

import (
	"encoding/json"
	"fmt"
	"net/http"
	"slices"
	"strings"

	"github.com/miekg/dns"
)

// MesosDNS serves the HTTP API of Mesos-DNS from the table: GET of
// /v1/{version,config,hosts/{host},services/{service},enumerate,axfr}, in its
// JSON shapes, a port being a string. It is to be mounted with its prefix, such
// as /mesos_dns, stripped, and shows the cluster's names to whoever reaches it.
func (p *Proxy) MesosDNS() http.Handler {
	mux := http.NewServeMux()
	get := func(path string, answer func(t *Table, r *http.Request) any) {
		mux.HandleFunc("GET "+path, func(w http.ResponseWriter, r *http.Request) {
			t := p.table.Load()
			if t == nil {
				http.Error(w, "there is no table of names yet", http.StatusServiceUnavailable)
				return
			}
			w.Header().Set("Content-Type", "application/json")
			json.NewEncoder(w).Encode(answer(t, r))
		})
	}
	get("/v1/version", func(*Table, *http.Request) any {
		return map[string]string{"Service": "Mesos-DNS", "Version": p.options.Version, "URL": "https://github.com/weirproject/weir"}
	})
	get("/v1/config", func(t *Table, _ *http.Request) any { return p.mesosConfig(t) })
	get("/v1/hosts/{host}", func(t *Table, r *http.Request) any { return t.mesosHosts(r.PathValue("host")) })
	get("/v1/services/{service}", func(t *Table, r *http.Request) any { return t.mesosServices(r.PathValue("service")) })
	get("/v1/enumerate", func(t *Table, _ *http.Request) any { return t.mesosEnumerate() })
	get("/v1/axfr", func(t *Table, _ *http.Request) any { return t.mesosTransfer() })
	return mux
}

// mesosDomain is the domain that people know from Mesos if it is one of ours,
// else the first.
func (t *Table) mesosDomain() (zone uint32, name string) {
	if i := slices.Index(t.source.domains, "\x05mesos\x00"); i >= 0 {
		return uint32(i), t.zones[i].name
	}
	return 0, t.zones[0].name
}

// lookup gives the records of the cluster's own names only.
func (t *Table) lookup(name string, qtype uint16) []dns.RR {
	m := new(dns.Msg).SetQuestion(dns.Fqdn(strings.ToLower(name)), qtype)
	packet, err := m.Pack()
	if err != nil {
		return nil
	}
	var q query
	out := make([]byte, tcpSize)
	if q.parse(packet) != dns.RcodeSuccess {
		return nil
	}
	n, _, ours, _ := t.answer(&q, out, tcpSize, 0, 0)
	if !ours || m.Unpack(out[:n]) != nil {
		return nil
	}
	return m.Answer
}

type mesosHost struct {
	Host string `json:"host"`
	IP   string `json:"ip"`
}

func (t *Table) mesosHosts(host string) []mesosHost {
	all := []mesosHost{}
	for _, rr := range t.hostRecords(host) {
		all = append(all, mesosHost{dns.Fqdn(strings.ToLower(host)), addressOf(rr)})
	}
	if len(all) == 0 {
		all = append(all, mesosHost{}) // as Mesos-DNS says that there is none
	}
	return all
}

func (t *Table) hostRecords(host string) []dns.RR {
	all := append(t.lookup(host, dns.TypeA), t.lookup(host, dns.TypeAAAA)...)
	return slices.DeleteFunc(all, func(rr dns.RR) bool { return addressOf(rr) == "" })
}

// addressOf a record; "" for one without.
func addressOf(rr dns.RR) string {
	switch rr := rr.(type) {
	case *dns.A:
		return rr.A.String()
	case *dns.AAAA:
		return rr.AAAA.String()
	}
	return ""
}

type mesosService struct {
	Service string `json:"service"`
	Host    string `json:"host"`
	IP      string `json:"ip"`
	Port    string `json:"port"`
}

func (t *Table) mesosServices(service string) []mesosService {
	all := []mesosService{}
	for _, rr := range t.lookup(service, dns.TypeSRV) {
		srv, ok := rr.(*dns.SRV)
		if !ok {
			continue
		}
		one := mesosService{Service: dns.Fqdn(strings.ToLower(service)), Host: srv.Target, Port: fmt.Sprint(srv.Port)}
		for _, a := range t.hostRecords(srv.Target) {
			one.IP = addressOf(a)
			all = append(all, one)
		}
		if one.IP == "" {
			all = append(all, one)
		}
	}
	if len(all) == 0 {
		all = append(all, mesosService{})
	}
	return all
}

// mesosZone has the names of Mesos-DNS's own fields.
type mesosZone struct {
	TTL            int
	Serial         uint32
	RefreshSeconds int
	Mname, Rname   string
	Domain         string
	Records        struct {
		As, AAAAs, SRVs map[string][]string
	}
}

func (t *Table) mesosTransfer() mesosZone {
	zone, apex := t.mesosDomain()
	domain := readable(apex)
	z := mesosZone{TTL: DefaultTTL, Serial: t.serial, RefreshSeconds: 1, Mname: "ns." + domain + ".", Rname: "hostmaster." + domain + ".", Domain: domain}
	z.Records.As, z.Records.AAAAs, z.Records.SRVs = map[string][]string{}, map[string][]string{}, map[string][]string{}
	t.each(zone, func(e *entry) error {
		name := string(e.name())
		for _, set := range e.shownSets() {
			for _, r := range e.shownRecords(&set) {
				rr, _, err := dns.UnpackRR([]byte(name+string(e.body(&r))), 0)
				if err != nil {
					continue
				}
				owner := rr.Header().Name
				switch rr := rr.(type) {
				case *dns.A:
					z.Records.As[owner] = append(z.Records.As[owner], rr.A.String())
				case *dns.AAAA:
					z.Records.AAAAs[owner] = append(z.Records.AAAAs[owner], rr.AAAA.String())
				case *dns.SRV:
					z.Records.SRVs[owner] = append(z.Records.SRVs[owner], fmt.Sprintf("%s:%d", rr.Target, rr.Port))
				}
			}
		}
		return nil
	})
	return z
}

// mesosEnumeration lists the tasks with their records.
type mesosEnumeration struct {
	Frameworks []*mesosFramework `json:"frameworks"`
}

type mesosFramework struct {
	Tasks []mesosTask `json:"tasks"`
	Name  string      `json:"name"`
}

type mesosTask struct {
	Name    string        `json:"name"`
	ID      string        `json:"id"`
	Records []mesosRecord `json:"records"`
}

type mesosRecord struct {
	Name  string `json:"name"`
	Host  string `json:"host"`
	Rtype string `json:"rtype"`
}

func (t *Table) mesosEnumerate() mesosEnumeration {
	_, apex := t.mesosDomain()
	n := t.source
	n.mu.Lock()
	defer n.mu.Unlock()
	byName := map[string]*mesosFramework{}
	all := mesosEnumeration{Frameworks: []*mesosFramework{}}
	for id, state := range n.tasks {
		service := state.task.Service
		if service == "" {
			service = builtIn
		}
		if byName[service] == nil {
			byName[service] = &mesosFramework{Name: service, Tasks: []mesosTask{}}
			all.Frameworks = append(all.Frameworks, byName[service])
		}
		path := slices.Clone(state.task.Path)
		slices.Reverse(path)
		byName[service].Tasks = append(byName[service].Tasks, mesosTask{Name: strings.Join(path, "."), ID: id, Records: n.mesosRecords(state, apex)})
	}
	slices.SortFunc(all.Frameworks, func(a, b *mesosFramework) int { return strings.Compare(a.Name, b.Name) })
	for _, f := range all.Frameworks {
		slices.SortFunc(f.Tasks, func(a, b mesosTask) int { return strings.Compare(a.ID, b.ID) })
	}
	return all
}

// mesosRecords are what one task claims in a domain.
func (n *names) mesosRecords(state taskState, apex string) []mesosRecord {
	c, all := &claims{names: n}, []mesosRecord{}
	c.task(state.app, state.task)
	for _, one := range c.list {
		if !strings.HasSuffix(one.name, apex) {
			continue
		}
		rr, _, err := dns.UnpackRR([]byte(one.name+one.body), 0)
		if err != nil {
			continue
		}
		r := mesosRecord{Name: rr.Header().Name, Host: addressOf(rr), Rtype: dns.TypeToString[one.rtype]}
		if srv, ok := rr.(*dns.SRV); ok {
			r.Host = fmt.Sprintf("%s:%d", srv.Target, srv.Port)
		}
		all = append(all, r)
	}
	return all
}

// mesosConfig has the keys of Mesos-DNS's configuration that mean something here.
func (p *Proxy) mesosConfig(t *Table) map[string]any {
	_, apex := t.mesosDomain()
	domain := readable(apex)
	resolvers, listeners, port := []string{}, []string{}, 53
	for _, u := range p.forward.routes.Load().upstreams {
		resolvers = append(resolvers, u.name)
	}
	for _, l := range p.options.Listen {
		listeners, port = append(listeners, l.Addr().String()), int(l.Port())
	}
	return map[string]any{
		"Domain": domain, "TTL": DefaultTTL, "RefreshSeconds": 1, "Port": port, "Listener": strings.Join(listeners, ","), "DNSOn": true, "HTTPOn": true,
		"ExternalOn": len(resolvers) > 0, "RecurseOn": len(resolvers) > 0, "Resolvers": resolvers, "Timeout": int(p.options.UpstreamTimeout.Seconds()),
		"SOAMname": "ns." + domain + ".", "SOARname": "hostmaster." + domain + ".", "SOASerial": t.serial, "SOARefresh": 60, "SOARetry": 10,
		"SOAExpire": 86400, "SOAMinttl": DefaultTTL, "IPSources": []string{"netinfo", "host"}, "EnforceRFC952": false, "SetTruncateBit": true, "EnumerationOn": true,
	}
}
