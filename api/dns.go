package api

// DNSCacheEntry is an answer that a node's proxy keeps.
type DNSCacheEntry struct {
	Name string `json:"name"`
	// Type that was asked for; "*" for the denial of a name, which holds for
	// every type and all names below it.
	Type  string `json:"type"`
	Rcode string `json:"rcode"`
	// Answer in presentation format.
	Answer   []string `json:"answer,omitempty"`
	Upstream string   `json:"upstream,omitempty"`
	// Age since it came and TTL left, in seconds; TTL is negative for an answer
	// past its end.
	Age  int    `json:"age"`
	TTL  int    `json:"ttl"`
	Hits uint32 `json:"hits"`
}

// DNSTopName is a name that is asked for often.
type DNSTopName struct {
	Name string `json:"name"`
	Type string `json:"type"`
	// Queries is an estimate that halves every minute.
	Queries int `json:"queries"`
}

// DNSUpstream is a server that the proxy asks.
type DNSUpstream struct {
	Upstream  string   `json:"upstream"`
	Zones     []string `json:"zones"`
	RoundTrip Duration `json:"round_trip"` // smoothed
	Queries   uint64   `json:"queries"`
	Hedges    uint64   `json:"hedges"` // of these, asked because another was late
	Failed    uint64   `json:"failed"`
	Down      bool     `json:"down"`
	Looped    bool     `json:"looped"` // it leads back to this proxy
}

// DNSFlushed tells how many answers were forgotten.
type DNSFlushed struct {
	Entries int `json:"entries"`
}

// DNSExplanation is where the answers to a name come from.
type DNSExplanation struct {
	Name string `json:"name"`
	// Status is exists, wildcard, missing, or outside for a name that is none of
	// the cluster's.
	Status string `json:"status"`
	Zone   string `json:"zone,omitempty"`
	// Entry is the name that answers when it is not Name.
	Entry string `json:"entry,omitempty"`
	// Records that are answered, and those that are not.
	Records []DNSExplainedRecord `json:"records,omitempty"`
	LeftOut []DNSExplainedRecord `json:"left_out,omitempty"`
	// ForwardZone has the upstreams of a name outside; Reason tells why none is
	// asked.
	ForwardZone string          `json:"forward_zone,omitempty"`
	Upstreams   []string        `json:"upstreams,omitempty"`
	Reason      string          `json:"reason,omitempty"`
	Cache       []DNSCacheEntry `json:"cache,omitempty"`
}

// DNSExplainedRecord is one record at a name.
type DNSExplainedRecord struct {
	Record string `json:"record"` // in presentation format
	Source string `json:"source"` // the service, record, node or task that it comes from
	// Reason tells why it is not answered.
	Reason string `json:"reason,omitempty"`
}

// DNSTrace is the way that a question takes.
type DNSTrace struct {
	Name string `json:"name"`
	Type string `json:"type"`
	// Steps before anybody is asked, in order.
	Steps []DNSTraceStep `json:"steps"`
	// Upstreams of the name's zone, all asked at once, in the order in which
	// clients' questions go to them.
	Upstreams []DNSTraceUpstream `json:"upstreams,omitempty"`
	// Answer that clients get.
	Answer DNSAnswer `json:"answer"`
}

// DNSTraceStep is one step of the way.
type DNSTraceStep struct {
	Step    string `json:"step"`
	Verdict string `json:"verdict"`
}

// DNSTraceUpstream is what one upstream said.
type DNSTraceUpstream struct {
	Upstream string `json:"upstream"`
	Protocol string `json:"protocol"`
	// Took until it answered; zero when it did not. Usual is its smoothed round
	// trip; zero while nothing is known.
	Took  Duration `json:"took,omitzero"`
	Usual Duration `json:"usual,omitzero"`
	// Rcode and Answer; empty when there is no answer.
	Rcode  string   `json:"rcode,omitempty"`
	Answer []string `json:"answer,omitempty"`
	// Verdict in words: good, or why the answer would not be taken.
	Verdict string `json:"verdict"`
}
